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

    def for_cycles(self):
        return "ACYCLIC" in self.constants.split()


SIZES = [
    # --- who may write
    Size("two-changes", "replication", "REPLICAS=2 TERMS=2 WRITES=2 CHANGES=2 SYMMETRY",
         ["no_term_fence", "no_session", "record_any_term", "promise_forgotten", "oldest_record", "no_majority", "no_prior",
          "source_not_member", "no_level", "ack_by_one", "ack_without_proposed", "read_in_flight", "fault_no_record",
          "return_no_copy", "return_no_writes", "read_no_lease", "one_lease", "lease_without_witness"], quick=True),
    Size("three-terms", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=0 SYMMETRY",
         ["own_prior", "term_without_writer"], quick=True),
    Size("three-terms-one-change", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=1 SYMMETRY",
         ["no_repeat", "term_reused"], store="bits"),
    Size("late-record", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=2 LATE", ["record_older"], quick=True),
    Size("three-replicas-no-change", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=0 SYMMETRY", ["no_level"], quick=True),
    Size("three-replicas", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=1 SYMMETRY", ["no_majority", "no_level"]),
    Size("three-replicas-two-changes", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=2 SYMMETRY", ["fault_prior_last"],
         store="bits", may_be_cut=True),
    Size("fallback", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=2 FALLBACK SYMMETRY", ["fallback_unasked"], quick=True),
    Size("fallback-three-replicas", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=1 FALLBACK SYMMETRY",
         ["fallback_unasked"]),
    Size("amnesia", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=1 AMNESIA SYMMETRY",
         ["reseed_unconfirmed", "reseed_by_old_term", "blank_votes"], quick=True),
    Size("amnesia-three-terms", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=0 AMNESIA SYMMETRY",
         ["reseed_unconfirmed", "blank_votes"], quick=True),
    Size("amnesia-change", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=1 AMNESIA SYMMETRY", ["reseed_by_old_term"],
         store="bits"),
    Size("heal", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=1 HEAL",
         ["never_settled", "no_return_after_heal"], quick=True),
    Size("heal-ends", "replication", "REPLICAS=2 TERMS=2 WRITES=1 CHANGES=1 HEAL ACYCLIC", [], quick=True),
    Size("heal-three-terms", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=1 HEAL", []),
    Size("heal-three-replicas", "replication", "REPLICAS=3 TERMS=2 WRITES=1 CHANGES=1 HEAL", []),
    Size("heal-amnesia", "replication", "REPLICAS=2 TERMS=3 WRITES=1 CHANGES=0 HEAL AMNESIA", []),

    # --- what the replicas hold
    Size("caches", "data", "WRITES=2 CHECKPOINTS=1 CUTS=2",
         ["no_session", "no_fence", "cold_source", "cold_source_some", "silent_reconnect", "generation_reused",
          "level_source_stamps", "level_own_stamps", "members_not_level", "no_stamp", "stamp_after_data", "flush_not_all",
          "return_source_stamps", "return_own_stamps", "return_no_writes", "return_no_flush", "return_stamps_early",
          "return_in_flight", "return_note_early", "return_resumed", "checkpoint_no_flush", "checkpoint_in_flight", "checkpoint_not_all"],
         quick=True),
    Size("cold", "data", "TERMS=3 EXTENTS=2 CUTS=1 CHANGES=1",
         ["cold_forgotten", "cold_cleared_early", "cold_cleared_blindly"], quick=True),
    Size("data-heal", "data", "HEAL TERMS=3 WRITES=1 CUTS=1 CHECKPOINTS=1 CHANGES=1", ["no_return_after_heal"], quick=True),
    Size("data-heal-ends", "data", "HEAL ACYCLIC TERMS=3 WRITES=1 CUTS=1 CHANGES=1", ["suspects_for_ever"], quick=True),
    Size("data-heal-demand", "data", "HEAL DEMAND TERMS=3 EXTENTS=2 WRITES=1 CUTS=1 CHANGES=1", [], quick=True),
    Size("blocks", "data", "EXTENTS=2 BLOCKS WRITES=2 CHECKPOINTS=1 CHANGES=1", ["stamp_not_kept"], quick=True),
    Size("blocks-demand", "data", "EXTENTS=2 BLOCKS DEMAND TERMS=3 WRITES=2 CHANGES=0", ["demand_read"], quick=True),
    Size("blocks-cut", "data", "EXTENTS=2 BLOCKS WRITES=2 CUTS=1 CHECKPOINTS=1 CHANGES=1", ["stamp_not_kept"],
         store="bits"),
    Size("two-extents-cut", "data", "EXTENTS=2 WRITES=2 CUTS=1 CHANGES=2", ["return_in_flight"]),
    Size("three-replicas-cut", "data", "REPLICAS=3 WRITES=1 CUTS=1 CHANGES=2", ["no_restamp_target"]),
    Size("three-replicas-checkpoint", "data", "REPLICAS=3 WRITES=1 CUTS=1 CHECKPOINTS=1 CHANGES=1", ["checkpoint_no_flush"]),
    Size("overlap", "data", "CHANNELS=2 WRITES=2", ["write_overlap", "lock_ignores_returning"], quick=True),
    Size("queue", "data", "TAKEN WRITES=2", ["no_drain", "no_session", "no_fence"], quick=True),
    Size("copy", "data", "SPLIT WRITES=2", ["copy_without_lock"], quick=True),
    Size("identity", "data", "WIPES=1", ["wipe_keeps_id"], quick=True),
    Size("holes", "data", "HOLES WRITES=2 CHECKPOINTS=2", ["hole_forgotten", "hole_members_only"], quick=True),
    Size("holes-cut", "data", "HOLES WRITES=2 CHECKPOINTS=1 CUTS=1", ["hole_forgotten"]),
    Size("demand", "data", "DEMAND TERMS=3 CUTS=3 CHECKPOINTS=1 CHANGES=1",
         ["demand_read", "demand_checkpoint", "demand_flush", "demand_fault_source"], quick=True),
    Size("third", "data", "REPLICAS=3 CHANGES=2", ["no_restamp_target", "return_from_faulted"], quick=True),
    Size("demand-third", "data", "DEMAND REPLICAS=3 TERMS=3 CUTS=1 CHANGES=2", ["demand_return_source"], quick=True),
    Size("demand-blocks", "data", "EXTENTS=2 BLOCKS DEMAND TERMS=3 WRITES=1 CUTS=2 CHANGES=1", ["demand_flush"]),

    # --- clocks, snapshots
    Size("lease", "lease", "LEASE=4 MARGIN=1 TICKS=14",
         ["answer_at_once", "restart_forgets", "counted_from_answer", "no_margin", "clock_stops_in_suspend",
          "grant_after_promise"], quick=True),
    Size("snapshot", "snapshot", "WRITES=3 CHANGES=2",
         ["no_hold", "no_drain", "resume_early", "not_in_record", "record_first", "proposed_left_out", "returning_takes_it",
          "return_head_only", "return_head_first", "return_writes_below"], quick=True),
    Size("snapshot-cut", "snapshot", "WRITES=2 CHANGES=2 CUTS=1", ["no_flush", "half_copied_kept"], quick=True),
    Size("snapshot-three", "snapshot", "REPLICAS=3 WRITES=2 CHANGES=2", ["proposed_left_out"]),
]
