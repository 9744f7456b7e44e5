#include "rpc/tls_files.h"

#include <fmt/format.h>
#include <memory>
#include <openssl/err.h>
#include <openssl/ssl.h>

namespace fairlead::rpc {
namespace {

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

// The first of what OpenSSL has to say is the cause, the rest is where it was noticed.
std::unexpected<Problem> problem_with(const std::string& path, const char* what) {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  if (error != 0 && ERR_SYSTEM_ERROR(error)) {
    return problem_of(error_from_errno(static_cast<int>(ERR_GET_REASON(error)), "read the file"), path);
  }
  const char* const reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  return problem(Code::kInvalidArgument, fmt::format("{} {} ({})", path, what, reason == nullptr ? "?" : reason));
}

}  // namespace

Outcome<void> check_tls_files(const TlsFiles& files) {
  ERR_clear_error();
  const std::unique_ptr<SSL_CTX, FreeContext> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr) return problem(Code::kInternal, "OpenSSL cannot be used");
  if (SSL_CTX_load_verify_locations(context.get(), files.ca.c_str(), nullptr) != 1) {
    return problem_with(files.ca, "holds no certificate in PEM form");
  }
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificate.c_str()) != 1) {
    return problem_with(files.certificate, "holds no certificate in PEM form");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return problem_with(files.key, fmt::format("holds no key in PEM form that fits {}", files.certificate).c_str());
  }
  return {};
}

}  // namespace fairlead::rpc
