"""The sizes that run.py searches, with the mutations that each of them catches."""

import dataclasses


@dataclasses.dataclass
class Size:
    name: str
    model: str
    constants: str              # NAME or NAME=VALUE, as the head of the model explains them
    mutations: list = dataclasses.field(default_factory=list)
    quick: bool = False         # part of ./dev check
    store: str = "exact"        # exact or bits: see run.py
    limit_s: int = 600
    may_be_cut: bool = False    # too large to be searched to the end

    def defines(self):
        return [f"-D{constant}" for constant in self.constants.split()]


SIZES = [
    # --- who may write
    Size("two-changes", "replication", "REPLICAS=2 TERMS=2 WRITES=2 CHANGES=2 SYMMETRY",
         ["no_term_fence", "no_session", "record_any_term", "promise_forgotten", "oldest_record", "no_majority", "no_prior",
          "source_not_member", "no_level", "ack_by_one", "ack_without_proposed", "read_in_flight", "fault_no_record",
          "return_no_copy", "return_no_writes", "read_no_lease", "one_lease", "lease_without_witness"], quick=True),
    Size("three-terms", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=0 SYMMETRY",
         ["own_prior", "term_without_writer", "term_reused"], quick=True),
    Size("amnesia", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=1 AMNESIA SYMMETRY",
         ["reseed_unconfirmed", "reseed_by_old_term", "blank_votes"], quick=True),
    Size("heal", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=1 HEAL",
         ["resume_stuck", "no_return_after_heal"], quick=True),
    Size("three-replicas", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=1 SYMMETRY", [], quick=True),

    # --- what the replicas hold
    Size("caches", "data", "WRITES=2 CHECKPOINTS=1 CUTS=2",
         ["no_session", "no_fence", "cold_source", "cold_source_some", "silent_reconnect", "generation_reused",
          "level_source_stamps", "level_own_stamps", "members_not_level", "no_stamp", "stamp_after_data", "flush_not_all",
          "return_source_stamps", "return_own_stamps", "return_no_writes", "return_no_flush", "return_stamps_early",
          "return_in_flight", "return_note_early", "checkpoint_no_flush", "checkpoint_in_flight", "checkpoint_not_all"],
         quick=True),
    Size("cold", "data", "TERMS=3 EXTENTS=2 CUTS=1 CHANGES=1",
         ["cold_forgotten", "cold_cleared_early", "cold_cleared_blindly"], quick=True),
    Size("overlap", "data", "CHANNELS=2 WRITES=2", ["write_overlap", "lock_ignores_returning"], quick=True),
    Size("queue", "data", "TAKEN WRITES=2", ["no_drain", "no_session", "no_fence"], quick=True),
    Size("copy", "data", "SPLIT WRITES=2", ["copy_without_lock"], quick=True),
    Size("identity", "data", "WIPES=1", ["wipe_keeps_id"], quick=True),
    Size("holes", "data", "HOLES WRITES=2 CHECKPOINTS=2", ["hole_forgotten", "hole_members_only"], quick=True),
    Size("demand", "data", "DEMAND TERMS=3 CUTS=3 CHECKPOINTS=1 CHANGES=1",
         ["demand_read", "demand_checkpoint", "demand_flush", "demand_fault_source"], quick=True),
    Size("third", "data", "REPLICAS=3 CHANGES=2", ["no_restamp_target", "return_from_faulted"], quick=True),
]
