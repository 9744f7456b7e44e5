// ControlWitness: the control plane as the witness of volumes. Lives on the home shard.
#pragma once

#include "engine/control_client.h"
#include "mirror/link.h"

namespace fairlead::engine {

class ControlWitness final : public mirror::Witness {
 public:
  static constexpr Duration kLimit = std::chrono::seconds(2);  // of a call

  // `control` is borrowed for life.
  explicit ControlWitness(ControlClient& control) : control_(control) {}

  Task<Result<uint64_t>> next_term(Uuid volume) override;
  Task<Result<mirror::WitnessAnswer>> prepare(Uuid volume, mirror::Term term) override;
  Task<Result<mirror::WitnessAnswer>> keep(Uuid volume, mirror::Record record, Standing standing) override;

 private:
  ControlClient& control_;
};

}  // namespace fairlead::engine
