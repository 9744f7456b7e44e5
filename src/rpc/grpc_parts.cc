#include "rpc/grpc_parts.h"

#include <grpc/support/log.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/byte_buffer.h>

#include "base/log.h"
#include "io/outside_thread.h"

namespace fairlead::rpc {
namespace {

thread_local std::string* said_on_this_thread = nullptr;

void on_grpc_log(gpr_log_func_args* arguments) {
  if (said_on_this_thread != nullptr) {
    said_on_this_thread->append(arguments->message).append("\n");
    return;
  }
  // What it calls an error is for a person to know when calls fail; those say so by themselves.
  log(arguments->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarn : LogLevel::kDebug, "rpc.grpc",
      {{"words", arguments->message}});
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> watch(const TlsFiles& files) {
  const auto reread_seconds = static_cast<unsigned>(std::chrono::ceil<std::chrono::seconds>(files.reread).count());
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files.key, files.certificate, files.ca,
                                                                              reread_seconds);
}

}  // namespace

void take_grpc_log() { gpr_set_log_function(on_grpc_log); }

GrpcWords::GrpcWords() { said_on_this_thread = &said_; }
GrpcWords::~GrpcWords() { said_on_this_thread = nullptr; }

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const std::optional<TlsFiles>& files) {
  const SignalsBlocked blocked;
  if (!files) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(watch(*files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const std::optional<TlsFiles>& files) {
  const SignalsBlocked blocked;
  if (!files) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(watch(*files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

grpc::ByteBuffer to_buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

Outcome<std::string> to_bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return problem(Code::kProtocol, "a message cannot be decompressed");
  std::string bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

}  // namespace fairlead::rpc
