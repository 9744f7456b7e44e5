// The files that make a process a member of a cluster: whose certificates it trusts, and its own. Both ends of a
// connection show theirs. That of the end that is called must name the address by which it is called (a DNS name or an
// IP address among its subject alternative names).
#pragma once

#include <string>

#include "async/time.h"
#include "base/problem.h"

namespace fairlead::rpc {

// Paths of PEM files. They are read again and again: a new certificate takes effect on new connections.
struct TlsFiles {
  std::string ca;                             // certificates, one or more
  std::string certificate;                    // its own first, then what links it to a CA, if anything
  std::string key;                            // of `certificate`
  Duration reread = std::chrono::minutes(1);  // at least a second
};

// Blocks for as long as files take to read. Errors: what the system says of a file (kNotFound, kPermissionDenied, …),
// kInvalidArgument (holds no certificate, no key, or another's).
Outcome<void> check_tls_files(const TlsFiles& files);

}  // namespace fairlead::rpc
