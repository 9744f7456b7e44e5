// `fairlead discover` and `fairlead identify`: what a target offers, and what one of its controllers says of itself.
#pragma once

#include <string>

#include "cli/arguments.h"
#include "cli/remote_data.h"
#include "host/discovery.h"

namespace fairlead::cli {

struct DiscoverArguments {
  std::string address = {};  // ADDR[:PORT]
  std::string host = {};     // NQN that this host gives itself; empty: derived from the machine
  bool json = false;
};
struct DiscoverPlan {
  SocketAddress address;
  host::HostIdentity identity;
  bool json = false;
};
std::expected<DiscoverPlan, Complaint> check(const DiscoverArguments& arguments);
// Returns the process's exit code: 1 when the target did not answer.
int discover(const DiscoverPlan& plan);

struct IdentifyArguments {
  std::string target = {};  // nvme+tcp://ADDR[:PORT]/NQN[?ns=N]
  std::string host = {};
  bool hdgst = false;
  bool ddgst = false;
  bool json = false;
};
struct IdentifyPlan {
  std::string name;  // the target, as it was given
  RemoteQuestion question;
  bool json = false;
};
std::expected<IdentifyPlan, Complaint> check(const IdentifyArguments& arguments);
int identify(const IdentifyPlan& plan);

// For people, in some lines, and as one JSON object.
std::string to_text(const host::Discovery& discovery);
std::string to_json(const host::Discovery& discovery);
std::string to_text(const RemoteController& controller);
std::string to_json(const RemoteController& controller);

}  // namespace fairlead::cli
