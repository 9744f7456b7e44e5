// NoWitness: what a volume's target asks where there is no control plane. Volumes with an odd number of members need
// none; one with an even number is served while a majority counts without it.
#pragma once

#include "mirror/link.h"

namespace fairlead::engine {

class NoWitness final : public mirror::Witness {
 public:
  Task<Result<uint64_t>> next_term(Uuid) override { co_return none(); }
  Task<Result<mirror::WitnessAnswer>> prepare(Uuid, mirror::Term) override { co_return none(); }
  Task<Result<mirror::WitnessAnswer>> keep(Uuid, mirror::Record, Standing) override { co_return none(); }

 private:
  static std::unexpected<Error> none() { return fail(Code::kUnreachable, "there is no control plane to be a witness"); }
};

}  // namespace fairlead::engine
