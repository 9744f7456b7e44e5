// Metrics: the documents of resources, as Prometheus reads them (text format 0.0.4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "control/json.h"

namespace fairlead::gateway {

struct MetricsSource {
  bool is_leading = false;  // else there is nothing else
  uint64_t events = 0;      // that happened since it leads
  std::vector<control::Json> nodes = {};
  std::vector<control::Json> pools = {};
  std::vector<control::Json> volumes = {};
};
std::string metrics_of(const MetricsSource& source);

}  // namespace fairlead::gateway
