#include "gateway/metrics.h"

#include <fmt/format.h>
#include <utility>

#include "control/resources.h"

namespace fairlead::gateway {
namespace {

using control::Json;
using Labels = std::vector<std::pair<std::string_view, std::string>>;

std::string escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    if (c == '\n') {
      escaped += "\\n";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string text_of(const Json& json, const char* name) {
  return json.contains(name) && json[name].is_string() ? json[name].get<std::string>() : std::string();
}

// Its name, and the claim that it is for.
Labels labels_of(const Json& volume) {
  Labels labels = {{"volume", text_of(volume, "name")}};
  if (!volume.contains("labels")) return labels;
  for (const auto& [label, key] :
       {std::pair("pvc", control::kLabelClaim), std::pair("pvc_namespace", control::kLabelClaimNamespace)}) {
    if (std::string text = text_of(volume["labels"], key); !text.empty()) labels.emplace_back(label, std::move(text));
  }
  return labels;
}

// One metric with all its samples, which stand together.
class Family {
 public:
  Family(std::string_view name, std::string_view type, std::string_view help) : name_(name) {
    text_ = fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
  }
  void add(const Labels& labels, const Json& value) {
    if (!value.is_number() && !value.is_boolean()) return;
    text_ += name_;
    const char* separator = "{";
    for (const auto& [label, text] : labels) {
      text_ += fmt::format("{}{}=\"{}\"", separator, label, escape(text));
      separator = ",";
    }
    if (!labels.empty()) text_ += "}";
    text_ += value.is_boolean() ? fmt::format(" {}\n", value.get<bool>() ? 1 : 0) : fmt::format(" {}\n", value.dump());
  }
  // The field of `json`, when it is there.
  void add_field(const Labels& labels, const Json& json, const char* field) {
    if (json.contains(field)) add(labels, json[field]);
  }
  // 1 for the state that `of` has.
  void add_state(Labels labels, const Json& of) {
    labels.emplace_back("state", text_of(of, "state"));
    add(labels, 1);
  }
  const std::string& text() const { return text_; }

 private:
  std::string name_;
  std::string text_;
};

std::string nodes_of(const std::vector<Json>& nodes) {
  Family state("fairlead_node_state", "gauge", "1 for the state that the node has.");
  Family replicas("fairlead_node_replicas", "gauge", "Replicas that are placed on the node.");
  Family targets("fairlead_node_targets", "gauge", "Volumes whose target is on the node.");
  for (const Json& node : nodes) {
    const std::string name = text_of(node, "name");
    const Json& status = node["status"];
    state.add_state({{"node", name}}, status);
    replicas.add_field({{"node", name}}, status, "replicas");
    targets.add_field({{"node", name}}, status, "targets");
  }
  return state.text() + replicas.text() + targets.text();
}

std::string pools_of(const std::vector<Json>& pools) {
  Family state("fairlead_pool_state", "gauge", "1 for the state that the pool has.");
  Family capacity("fairlead_pool_capacity_bytes", "gauge", "What the pool's disks hold.");
  Family used("fairlead_pool_used_bytes", "gauge", "What is taken of it.");
  Family free("fairlead_pool_free_bytes", "gauge", "What is left of it.");
  Family promised("fairlead_pool_promised_bytes", "gauge", "The sizes of its replicas, as if each were full.");
  Family replicas("fairlead_pool_replicas", "gauge", "Replicas that are placed in the pool.");
  for (const Json& pool : pools) {
    const Json& status = pool["status"];
    const Labels labels = {{"pool", text_of(pool, "name")}, {"node", text_of(pool["spec"], "node")}};
    state.add_state(labels, status);
    capacity.add_field(labels, status, "capacity_bytes");
    used.add_field(labels, status, "used_bytes");
    free.add_field(labels, status, "free_bytes");
    promised.add_field(labels, status, "promised_bytes");
    replicas.add_field(labels, status, "replicas");
  }
  return state.text() + capacity.text() + used.text() + free.text() + promised.text() + replicas.text();
}

std::string volumes_of(const std::vector<Json>& volumes) {
  Family state("fairlead_volume_state", "gauge", "1 for the state that the volume has.");
  Family size("fairlead_volume_size_bytes", "gauge", "The size that was asked for.");
  Family wanted("fairlead_volume_replicas_wanted", "gauge", "Replicas that were asked for.");
  Family snapshots("fairlead_volume_snapshots", "gauge", "Snapshots that there are of it.");
  Family condition("fairlead_volume_condition", "gauge", "Whether the condition is met.");
  for (const Json& volume : volumes) {
    const Json& status = volume["status"];
    const Labels labels = labels_of(volume);
    state.add_state(labels, status);
    size.add_field(labels, volume["spec"], "size_bytes");
    wanted.add_field(labels, volume["spec"], "replicas");
    snapshots.add_field(labels, status, "snapshots");
    for (const Json& each : status["conditions"]) {
      Labels of_condition = labels;
      of_condition.emplace_back("condition", text_of(each, "type"));
      condition.add_field(of_condition, each, "met");
    }
  }
  return state.text() + size.text() + wanted.text() + snapshots.text() + condition.text();
}

std::string replicas_of(const std::vector<Json>& volumes) {
  Family state("fairlead_replica_state", "gauge", "1 for the state that the replica has.");
  Family allocated("fairlead_replica_allocated_bytes", "gauge", "What the replica takes of its pool.");
  Family copied("fairlead_resync_copied_bytes", "gauge", "What was copied to the replica since it came back.");
  Family to_copy("fairlead_resync_to_copy_bytes", "gauge", "What is to be copied to it in all.");
  Family rate("fairlead_resync_bytes_per_second", "gauge", "How fast it is copied.");
  Family left("fairlead_resync_eta_seconds", "gauge", "When it will be done, by that rate.");
  for (const Json& volume : volumes) {
    for (const Json& replica : volume["status"]["replicas"]) {
      const Labels labels = {{"replica", text_of(replica, "id")},
                             {"volume", text_of(replica, "volume")},
                             {"pool", text_of(replica, "pool")},
                             {"node", text_of(replica, "node")}};
      state.add_state(labels, replica);
      allocated.add_field(labels, replica, "allocated_bytes");
      copied.add_field(labels, replica, "copied_bytes");
      to_copy.add_field(labels, replica, "to_copy_bytes");
      rate.add_field(labels, replica, "copy_bytes_per_second");
      if (replica.contains("eta_ms")) left.add(labels, replica["eta_ms"].get<double>() / 1000);
    }
  }
  return state.text() + allocated.text() + copied.text() + to_copy.text() + rate.text() + left.text();
}

std::string targets_of(const std::vector<Json>& volumes) {
  Family state("fairlead_target_state", "gauge", "1 for what the node's engine is to the volume's hosts.");
  Family controllers("fairlead_target_controllers", "gauge", "Controllers of hosts that are connected there.");
  for (const Json& volume : volumes) {
    for (const Json& path : volume["status"]["paths"]) {
      const Labels labels = {{"volume", text_of(volume, "name")}, {"node", text_of(path, "node")}};
      state.add_state(labels, path);
      controllers.add_field(labels, path, "controllers");
    }
  }
  return state.text() + controllers.text();
}

}  // namespace

std::string metrics_of(const MetricsSource& source) {
  Family leading("fairlead_control_leading", "gauge", "Whether this process leads the cluster.");
  leading.add({}, source.is_leading);
  if (!source.is_leading) return leading.text();
  Family events("fairlead_control_events_total", "counter", "Events since this process started.");
  events.add({}, source.events);
  return leading.text() + events.text() + nodes_of(source.nodes) + pools_of(source.pools) + volumes_of(source.volumes) +
         replicas_of(source.volumes) + targets_of(source.volumes);
}

}  // namespace fairlead::gateway
