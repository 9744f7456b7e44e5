// csi_call ADDRESS: calls the methods of a CSI plugin. Each line of its input is a method and its request as JSON, such
// as `NodeUnstageVolume {"volume_id": "db"}`; each is answered by a line: gRPC's code, a blank, and the reply as JSON
// or the plugin's words. It waits for a plugin that is not there yet.
#include <api/csi/v1/csi.pb.h>
#include <chrono>
#include <fmt/format.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <memory>
#include <string>

#include "rpc/grpc_parts.h"

namespace {

namespace protobuf = google::protobuf;

constexpr std::chrono::seconds kAnswerLimit{120};

const protobuf::MethodDescriptor* method_of(const std::string& name) {
  const protobuf::FileDescriptor* const file = csi::v1::GetPluginInfoRequest::descriptor()->file();
  for (int i = 0; i < file->service_count(); ++i) {
    if (const auto* const found = file->service(i)->FindMethodByName(name)) return found;
  }
  return nullptr;
}

std::unique_ptr<protobuf::Message> message_of(const protobuf::Descriptor* type) {
  return std::unique_ptr<protobuf::Message>(protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

grpc::Status call(grpc::GenericStub& stub, const protobuf::MethodDescriptor& method, const protobuf::Message& request,
                  protobuf::Message& reply) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + kAnswerLimit);
  grpc::CompletionQueue queue;
  const std::string path = fmt::format("/{}/{}", method.service()->full_name(), method.name());
  const auto reader =
      stub.PrepareUnaryCall(&context, path, fairlead::rpc::to_buffer(request.SerializeAsString()), &queue);
  reader->StartCall();
  grpc::ByteBuffer bytes;
  grpc::Status status;
  reader->Finish(&bytes, &status, nullptr);
  void* tag = nullptr;
  bool is_ok = false;
  queue.Next(&tag, &is_ok);
  if (!status.ok()) return status;
  const auto text = fairlead::rpc::to_bytes(bytes);
  if (!text || !reply.ParseFromString(*text)) return {grpc::StatusCode::INTERNAL, "the reply is not of its type"};
  return status;
}

std::string answer(grpc::GenericStub& stub, const std::string& line) {
  const size_t blank = std::min(line.find(' '), line.size());
  const protobuf::MethodDescriptor* const method = method_of(line.substr(0, blank));
  if (method == nullptr) return fmt::format("{} there is no such method", int{grpc::StatusCode::UNIMPLEMENTED});
  const auto request = message_of(method->input_type());
  const auto reply = message_of(method->output_type());
  const auto parsed = protobuf::util::JsonStringToMessage(line.substr(blank), request.get());
  if (!parsed.ok()) return fmt::format("{} {}", int{grpc::StatusCode::INTERNAL}, parsed.ToString());
  const grpc::Status status = call(stub, *method, *request, *reply);
  if (!status.ok()) return fmt::format("{} {}", static_cast<int>(status.error_code()), status.error_message());
  std::string text;
  protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto printed = protobuf::util::MessageToJsonString(*reply, &text, options);
  return printed.ok() ? fmt::format("0 {}", text)
                      : fmt::format("{} {}", int{grpc::StatusCode::INTERNAL}, printed.ToString());
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  grpc::GenericStub stub(grpc::CreateCustomChannel(words[1], grpc::InsecureChannelCredentials(), arguments));
  char* line = nullptr;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    std::string text = answer(stub, line);
    std::ranges::replace(text, '\n', ' ');
    fmt::print("{}\n", text);
    std::fflush(stdout);
  }
}
