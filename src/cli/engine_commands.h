// The commands of `fairlead engine --commands`: what is said of replicas and volumes, in words.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/faulty.h"
#include "cli/commands.h"
#include "engine/engine.h"

namespace fairlead::cli {

// Lives on the engine's home shard. One call at a time.
class EngineCommands {
 public:
  // Borrows the engine for life. `faulty`: the disks of its pool that can be made to fail; they are its too.
  explicit EngineCommands(engine::Engine& engine, std::vector<std::shared_ptr<FaultySource>> faulty = {})
      : engine_(engine), faulty_(std::move(faulty)) {}

  // Does what a line says and returns the answer, one line: "ok" or "error", and more about it.
  Task<std::string> execute(std::string line);

 private:
  static std::span<const Verb<EngineCommands>> verbs();
  Task<Answer> create_replica(Words words);
  Task<Answer> clone_replica(Words words);
  Task<Answer> list_replicas(Words words);
  Task<Answer> delete_replica(Words words);
  Task<Answer> open_volume(Words words);
  Task<Answer> serve_volume(Words words);
  Task<Answer> stand_by(Words words);
  Task<Answer> force(Words words);
  Task<Answer> show_volume(Words words);
  Task<Answer> list_volumes(Words words);
  Task<Answer> take_snapshot(Words words);
  Task<Answer> delete_snapshot(Words words);
  Task<Answer> grow_volume(Words words);
  Task<Answer> close_volume(Words words);
  Task<Answer> set_faults(Words words);
  Task<Answer> show_statistics(Words words);
  Task<Answer> show_help(Words words);

  engine::Engine& engine_;
  const std::vector<std::shared_ptr<FaultySource>> faulty_;
};

}  // namespace fairlead::cli
