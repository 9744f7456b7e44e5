// What the two edges of gRPC share: how messages, errors and certificates are said in its terms. Any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "rpc/tls_files.h"

namespace grpc {
class ByteBuffer;
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace fairlead::rpc {

inline constexpr size_t kMessageBytesMax = size_t{64} * 1024 * 1024;
inline constexpr int kKeepAliveMs = 10'000;
inline constexpr const char* kCodeTrailer = "fairlead-code";

// gRPC's own words go to our log from here on. Idempotent.
void take_grpc_log();

// While it lives, what gRPC says on this thread is kept instead of logged. Lives on one thread.
class GrpcWords {
 public:
  GrpcWords();
  ~GrpcWords();
  GrpcWords(const GrpcWords&) = delete;
  GrpcWords& operator=(const GrpcWords&) = delete;
  const std::string& said() const { return said_; }

 private:
  std::string said_;
};

// None: in the clear, without any certificate. Files that are not there, or are no good, make every connection fail.
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const std::optional<TlsFiles>& files);
std::shared_ptr<grpc::ServerCredentials> server_credentials(const std::optional<TlsFiles>& files);

grpc::ByteBuffer to_buffer(const std::string& bytes);
// Error: kProtocol.
Outcome<std::string> to_bytes(const grpc::ByteBuffer& buffer);

}  // namespace fairlead::rpc
