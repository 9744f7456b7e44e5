/*
 * What the replicas hold: extents, stamps, checkpoint notes, holes, caches, sessions, levelling, return. See README.md.
 *
 * Targets serve one after the other: replication.pml shows that no two are in force. The record is one place here, which a
 * proposal may or may not reach: `candidates` are the records that a take-over may find. Majorities are left out, so any
 * member that answers will do, which permits more than the rules do.
 *
 *   REPLICAS     2 or 3
 *   EXTENTS      1 or 2
 *   CHANNELS     writes that may be in flight at once; channel c writes to extent c % EXTENTS
 *   TERMS        targets, one after the other
 *   WRITES       writes, each of a value of its own
 *   CHANGES      faults and returns
 *   CHECKPOINTS  checkpoints begun
 *   CUTS         power cuts, each of one replica; each extent's un-flushed content is kept or lost as it likes
 *   HOLES        a write may be an unmap, which leaves a hole
 *   DEMAND       a take-over may serve before all is level
 *   SPLIT        a copy reads and writes in two steps
 *   BLOCKS       the two "extents" are blocks of one: one stamp, copied together, but written each by itself
 *   TAKEN        a replica may have taken a write into its queue that has not landed yet
 *   WIPES        a replica's disk may be replaced by an empty one
 *   ACYCLIC      with HEAL: look for runs that go on for ever after the faults, not for errors at their end
 *   HEAL         faults end once, before the last term; from then on that target alone works and must come to serve
 *
 * As in replication.pml, a message lost is one that is never delivered, and any member may be suspected at any time.
 */
#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef EXTENTS
#define EXTENTS 1
#endif
#ifndef CHANNELS
#define CHANNELS EXTENTS
#endif
#ifndef TERMS
#define TERMS 2
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 0
#endif
#ifndef CUTS
#define CUTS 0
#endif
#ifndef WIPES
#define WIPES 0
#endif

#define MUTATIONS(X) \
  X(no_session) X(no_fence) X(no_drain) X(cold_source) X(cold_source_some) X(cold_forgotten) X(cold_cleared_early) \
  X(cold_cleared_blindly) X(silent_reconnect) X(generation_reused) X(level_source_stamps) X(level_own_stamps) X(no_restamp_target) \
  X(no_restamp_source) X(members_not_level) X(write_overlap) X(copy_without_lock) X(no_stamp) X(stamp_after_data) \
  X(flush_not_all) X(return_source_stamps) X(return_own_stamps) X(return_no_writes) X(return_from_faulted) X(return_no_flush) \
  X(return_stamps_early) X(return_in_flight) X(lock_ignores_returning) X(return_note_early) X(return_resumed) \
  X(checkpoint_no_flush) X(checkpoint_in_flight) X(checkpoint_not_all) X(hole_forgotten) X(hole_members_only) \
  X(demand_read) X(demand_checkpoint) X(demand_flush) X(demand_return_source) X(demand_fault_source) X(wipe_keeps_id) \
  X(stamp_not_kept) X(no_return_after_heal) X(suspects_for_ever)
#include "mutation.inc.pml"

#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#define SAY3(text, a, b, c) printf(text, a, b, c)
#define SAY4(text, a, b, c, d) printf(text, a, b, c, d)

#define ALL ((1 << REPLICAS) - 1)
#define BIT(n) (1 << (n))
#define AT(r, e) ((r) * EXTENTS + (e))
#define MESSAGE(r, c) ((r) * CHANNELS + (c))
#define EXTENT_OF(c) ((c) % EXTENTS)
#ifdef BLOCKS
#define UNIT(e) 0                  /* what is stamped and copied as one */
#else
#define UNIT(e) (e)
#endif
#define STAMP(r, e) stamp[AT(r, UNIT(e))]

/* ---- Replicas. */
byte cached[REPLICAS * EXTENTS];   /* content, as read */
byte stored[REPLICAS * EXTENTS];   /* content that a power cut leaves */
byte stamp[REPLICAS * EXTENTS];    /* generation of the last change; durable before the change is */
byte note[REPLICAS];               /* its own checkpoint note */
byte cold = 0;                     /* replicas that lost their cache since they were last level; durable */
byte wiped = 0;                    /* replicas whose disk was replaced: another id */
byte sent[REPLICAS * CHANNELS];    /* values under way to a replica, of its current session; they outlive their target */
byte sent_generation[REPLICAS * CHANNELS];
byte taken = 0;                    /* messages in a replica's queue, as bits */

/* ---- The record. */
byte candidates = 0;               /* bit s: a take-over may find the member set s */
byte record_generation = 0;        /* highest generation written with a record */

/* ---- The target of the day. */
#define PREPARING 1
#define LEVELLING 2
#define RECORDING 3
#define SERVING 4
byte term = 1;
byte stage = SERVING;
byte generation;
byte answers = 0;
byte session = ALL;                /* replicas with a session of this target, not rebooted since */
byte members = ALL;                /* of the record found or in force */
byte needed = ALL;                 /* and of every one proposed since */
byte proposal = 0;
byte source = 0;                   /* as a set of one */
byte behind[REPLICAS];             /* extents that are still to be copied to it */
byte writing[CHANNELS];
byte written[CHANNELS];
byte write_generation[CHANNELS];
byte returning = 0;                /* as a set of one */
byte return_source = 0;
byte awaited = 0;                  /* channels whose write was begun before the returning replica was sent any */
bit stamps_read = 0;               /* what it has to be sent is known */
byte checkpoint = 0;               /* 1: generation moved, 2: flushed, notes are being written */
byte to_note = 0;
byte left_over = 0;                /* of a mutation: 1 + what an interrupted return had still to copy */
#ifdef SPLIT
byte copying = 0;                  /* 1 + AT(r, e) of a copy that was read and not yet written */
byte copied_value = 0;
#endif

/* ---- The observer. Values are sets of bits. */
byte next_value = 1;
byte replaced[EXTENTS];            /* no read may return these any more */
byte replaced_flushed[EXTENTS];    /* not even after every member lost its cache */
byte holes = 0;                    /* values that are holes */
byte changes = 0;
byte checkpoints = 0;
byte cuts = 0;
byte wipes = 0;
bit healed = 0;
bit ended = 0;                    /* nothing is left to do */

#define FAULTS (!healed)
#ifdef HEAL
#define LAST_TERM (TERMS - 1)      /* before the faults end */
#else
#define LAST_TERM TERMS
#endif

#define STARTED ((1 << next_value) - 1)
#define WRITING_TO(e) ((writing[0] && EXTENT_OF(0) == (e)) || (CHANNELS == 2 && writing[CHANNELS - 1] && EXTENT_OF(CHANNELS - 1) == (e)))
#define UNDER_WAY(e) ((EXTENT_OF(0) == (e) && writing[0] -> BIT(writing[0]) : 0) | \
  (CHANNELS == 2 && EXTENT_OF(CHANNELS - 1) == (e) && writing[CHANNELS - 1] -> BIT(writing[CHANNELS - 1]) : 0))
#define PENDING(r, e) ((EXTENT_OF(0) == (e) && sent[MESSAGE(r, 0)]) || (CHANNELS == 2 && EXTENT_OF(CHANNELS - 1) == (e) && sent[MESSAGE(r, CHANNELS - 1)]))
#define QUIET_RETURN(r) (!sent[MESSAGE(r, 0)] && !sent[MESSAGE(r, CHANNELS - 1)])
#ifdef SPLIT
#define COPYING(e) (copying && (copying - 1) % EXTENTS == (e) && !DROPPED(copy_without_lock))
#else
#define COPYING(e) false
#endif
/* A write holds its extent until each member and the returning replica have it; a copy holds it as well. */
#define LOCKED(e) (WRITING_TO(e) || COPYING(e) || (!DROPPED(lock_ignores_returning) && \
  (((returning & 1) && PENDING(0, e)) || ((returning & 2) && PENDING(1, e)) || ((returning & 4) && PENDING(REPLICAS - 1, e)))))
#define BEHIND_SET(set) ((((set) & 1) -> behind[0] : 0) | (((set) & 2) -> behind[1] : 0) | (((set) & 4) -> behind[REPLICAS - 1] : 0))
#define LEVEL_SET(set) ((set) & ((behind[0] == 0 -> 1 : 0) | (behind[1] == 0 -> 2 : 0) | ((REPLICAS == 3 && behind[REPLICAS - 1] == 0) -> 4 : 0)))
#define INDEX(set) (((set) & 1) -> 0 : (((set) & 2) -> 1 : 2))
#define ABOVE_NOTE(s, r, e) (STAMP(s, e) > note[r])
#define DIRTY(r) (ABOVE_NOTE(r, r, 0) || ABOVE_NOTE(r, r, EXTENTS - 1))
#define BEGINS(t) ((t) * 4)        /* generations order by (term, number) */

/* Extents that r must be sent from s: stamped after r's own note, on it or on the source. */
#define MUST_COPY(s, r, e, by_source, by_own) ((((by_source) && ABOVE_NOTE(s, r, e)) || ((by_own) && ABOVE_NOTE(r, r, e))) -> BIT(e) : 0)
#if EXTENTS == 2 && !defined(BLOCKS)
#define MUST_COPY_ALL(s, r, by_source, by_own) (MUST_COPY(s, r, 0, by_source, by_own) | MUST_COPY(s, r, 1, by_source, by_own))
#else
#define MUST_COPY_ALL(s, r, by_source, by_own) MUST_COPY(s, r, 0, by_source, by_own)
#endif

inline drop_messages(r) {
  if
  :: DROPPED(no_drain) ->
     if :: !(taken & BIT(MESSAGE(r, 0))) -> sent[MESSAGE(r, 0)] = 0 :: else fi;
     if :: !(taken & BIT(MESSAGE(r, CHANNELS - 1))) -> sent[MESSAGE(r, CHANNELS - 1)] = 0 :: else fi
  :: else ->
     sent[MESSAGE(r, 0)] = 0; sent_generation[MESSAGE(r, 0)] = 0;
     sent[MESSAGE(r, CHANNELS - 1)] = 0; sent_generation[MESSAGE(r, CHANNELS - 1)] = 0
  fi
}

/* Both ends are stamped anew. */
inline stamp_copy(s, r, e) {
  if :: DROPPED(no_restamp_source) :: else -> STAMP(s, e) = generation fi;
  if :: DROPPED(no_restamp_target) :: else -> STAMP(r, e) = generation fi
}

inline copy(s, r, e) {
  cached[AT(r, e)] = cached[AT(s, e)];
#ifdef BLOCKS
  cached[AT(r, 1)] = cached[AT(s, 1)];
#endif
  stamp_copy(s, r, e);
  behind[r] = behind[r] & ~BIT(e)
}

inline flush(r) {
  stored[AT(r, 0)] = cached[AT(r, 0)];
  stored[AT(r, EXTENTS - 1)] = cached[AT(r, EXTENTS - 1)]
}

inline flush_set(set) {
  if :: (set) & 1 -> flush(0) :: else fi;
  if :: (set) & 2 -> flush(1) :: else fi;
#if REPLICAS == 3
  if :: (set) & 4 -> flush(2) :: else fi;
#endif
  skip
}

inline end_return() {
  if
  :: returning && DROPPED(return_resumed) && stamps_read -> left_over = 1 + behind[INDEX(returning)]; behind[INDEX(returning)] = 0
  :: returning && !(DROPPED(return_resumed) && stamps_read) -> behind[INDEX(returning)] = 0
  :: else
  fi;
  returning = 0; return_source = 0; awaited = 0; stamps_read = 0
}

inline propose(set) {
  proposal = set; needed = needed | set; candidates = candidates | (1 << (set))
}

/* A write reaches the medium's cache; the stamp was durable before it. */
inline land(r, c) {
  SAY4("write %d to extent %d lands on %d, generation %d\n", sent[MESSAGE(r, c)], EXTENT_OF(c), r, sent_generation[MESSAGE(r, c)]);
  cached[AT(r, EXTENT_OF(c))] = sent[MESSAGE(r, c)];
  if
  :: DROPPED(no_stamp) || (DROPPED(hole_forgotten) && ((holes >> sent[MESSAGE(r, c)]) & 1)) ->
     if :: DROPPED(hole_forgotten) -> STAMP(r, EXTENT_OF(c)) = 0 :: else fi
  :: else ->
     if
     :: STAMP(r, EXTENT_OF(c)) < sent_generation[MESSAGE(r, c)] || DROPPED(stamp_not_kept) ->
        STAMP(r, EXTENT_OF(c)) = sent_generation[MESSAGE(r, c)]
     :: else
     fi
  fi;
  if :: writing[c] == sent[MESSAGE(r, c)] -> written[c] = written[c] | BIT(r) :: else fi;
  sent[MESSAGE(r, c)] = 0; sent_generation[MESSAGE(r, c)] = 0;
  taken = taken & ~BIT(MESSAGE(r, c))
}

#define MAY_RETURN_NOW (healed && !proposal && !DROPPED(no_return_after_heal))

/* ---- What happens to one replica, and between it and the target. */
proctype Replica(byte r) {
  byte e;
  do
  /* Prepare: what it took from older sessions has ended, the rest is refused; a session is opened. */
  :: d_step {
       stage == PREPARING && !(answers & BIT(r)) && !(wiped & BIT(r)) &&
       (!(taken & (BIT(MESSAGE(r, 0)) | BIT(MESSAGE(r, CHANNELS - 1)))) || DROPPED(no_drain)) ->
       SAY3("replica %d answers T%d, cold %x\n", r, term, cold & BIT(r));
       if :: DROPPED(no_fence) :: else -> drop_messages(r) fi;
       answers = answers | BIT(r); session = session | BIT(r);
       if :: DROPPED(cold_forgotten) && term < TERMS -> cold = cold & ~BIT(r) :: else fi }
  :: d_step {
       stage == LEVELLING && behind[r] && !(session & BIT(r)) -> behind[r] = 0; answers = answers & ~BIT(r) }
  :: d_step {
       taken & BIT(MESSAGE(r, 0)) -> land(r, 0) }
#if CHANNELS == 2
  :: d_step {
       taken & BIT(MESSAGE(r, 1)) -> land(r, 1) }
#endif
#ifdef TAKEN
  :: d_step { sent[MESSAGE(r, 0)] && !(taken & BIT(MESSAGE(r, 0))) -> taken = taken | BIT(MESSAGE(r, 0)) }
#if CHANNELS == 2
  :: d_step { sent[MESSAGE(r, 1)] && !(taken & BIT(MESSAGE(r, 1))) -> taken = taken | BIT(MESSAGE(r, 1)) }
#endif
#else
  :: d_step { sent[MESSAGE(r, 0)] -> land(r, 0) }
#if CHANNELS == 2
  :: d_step { sent[MESSAGE(r, 1)] -> land(r, 1) }
#endif
#endif
  /* A fault. A member that is level must be left. */
  :: d_step {
       stage == SERVING && (FAULTS && changes < CHANGES || healed && DROPPED(suspects_for_ever)) &&
       (members & BIT(r)) && members != BIT(r) && proposal != (members & ~BIT(r)) &&
       (LEVEL_SET(members & ~BIT(r)) || DROPPED(demand_fault_source)) ->
       SAY1("fault of %d is proposed\n", r);
       if :: FAULTS -> changes++ :: else fi;
       propose(members & ~BIT(r)) }
  /* A return begins: a new session, older ones drained; from now on it is sent every write. */
  :: d_step {
       stage == SERVING && !(needed & BIT(r)) && !returning && (changes < CHANGES || MAY_RETURN_NOW) &&
       (!(taken & (BIT(MESSAGE(r, 0)) | BIT(MESSAGE(r, CHANNELS - 1)))) || DROPPED(no_session)) ->
       SAY1("return of %d begins\n", r);
       if :: FAULTS -> changes++ :: else fi;
       returning = BIT(r); stamps_read = 0;
       awaited = (writing[0] -> 1 : 0) | ((CHANNELS == 2 && writing[CHANNELS - 1]) -> 2 : 0);
       if :: DROPPED(no_session) :: else -> drop_messages(r) fi;
       session = session | BIT(r); wiped = wiped & ~BIT(r) }
  /* It is level: flush it; from now on acknowledgements need it. */
  :: d_step {
       stage == SERVING && returning == BIT(r) && stamps_read && behind[r] == 0 && (session & BIT(r)) &&
       (QUIET_RETURN(r) || DROPPED(return_in_flight)) ->
       SAY1("return of %d is proposed\n", r);
       if :: DROPPED(return_no_flush) :: else -> flush(r) fi;
       cold = cold & ~BIT(r);
       end_return();
       propose(members | BIT(r)) }
#if CUTS > 0
  :: atomic {
       cuts < CUTS && FAULTS ->
       cuts++;
       d_step {
         if :: DIRTY(r) -> cold = cold | BIT(r) :: else fi;
         session = session & ~BIT(r);
         if :: source == BIT(r) && stage != RECORDING -> source = 0 :: else fi;
         sent[MESSAGE(r, 0)] = 0; sent_generation[MESSAGE(r, 0)] = 0;
         sent[MESSAGE(r, CHANNELS - 1)] = 0; sent_generation[MESSAGE(r, CHANNELS - 1)] = 0;
         taken = taken & ~(BIT(MESSAGE(r, 0)) | BIT(MESSAGE(r, CHANNELS - 1)));
         if :: returning == BIT(r) -> end_return() :: else fi
       };
       e = 0;
       do
       :: e < EXTENTS && cached[AT(r, e)] == stored[AT(r, e)] -> e++
       :: e < EXTENTS && cached[AT(r, e)] != stored[AT(r, e)] ->
          SAY4("replica %d loses power and extent %d, %d back to %d\n", r, e, cached[AT(r, e)], stored[AT(r, e)]);
          cached[AT(r, e)] = stored[AT(r, e)]; e++
       :: e < EXTENTS && cached[AT(r, e)] != stored[AT(r, e)] ->
          SAY3("replica %d loses power, extent %d keeps %d\n", r, e, cached[AT(r, e)]);
          stored[AT(r, e)] = cached[AT(r, e)];
          if :: DROPPED(stamp_after_data) -> STAMP(r, e) = 0 :: else fi;
          e++
       :: e == EXTENTS -> break
       od;
       e = 0 }
  :: d_step { DROPPED(silent_reconnect) && stage == SERVING && (members & ~session & BIT(r)) -> session = session | BIT(r) }
#endif
#if WIPES > 0
  :: d_step {
       wipes < WIPES && FAULTS ->
       SAY1("the disk of %d is replaced\n", r);
       wipes++;
       cached[AT(r, 0)] = 0; stored[AT(r, 0)] = 0; STAMP(r, 0) = 0;
       cached[AT(r, EXTENTS - 1)] = 0; stored[AT(r, EXTENTS - 1)] = 0; STAMP(r, EXTENTS - 1) = 0;
       note[r] = 0; cold = cold & ~BIT(r);
       session = session & ~BIT(r); answers = answers & ~BIT(r);
       drop_messages(r);
       if :: returning == BIT(r) -> end_return() :: else fi;
       if :: DROPPED(wipe_keeps_id) :: else -> wiped = wiped | BIT(r) fi }
#endif
  /* A note is written. */
  :: d_step {
       stage == SERVING && checkpoint == 2 && (to_note & BIT(r)) && (session & BIT(r)) ->
       SAY2("replica %d notes %d\n", r, generation - 1);
       note[r] = generation - 1; to_note = to_note & ~BIT(r);
       if :: to_note == 0 -> checkpoint = 0 :: else fi }
  od
}

#define NOTED(r, e, other) (note[other] >= STAMP(r, e) || (DROPPED(hole_members_only) && stage == SERVING && !(needed & BIT(other))))

#ifdef BLOCKS
#define COPY_LOCKED(e) (LOCKED(0) || LOCKED(1))
#else
#define COPY_LOCKED(e) LOCKED(e)
#endif
/* Whoever left the members meanwhile misses writes. */
#define MAY_COPY_FROM(s) ((s) & session & (members | (DROPPED(return_from_faulted) -> ALL : 0)))

/* ---- One extent on one replica. */
proctype Extent(byte r; byte e) {
  do
  /* Levelling at take-over, or on demand while serving. */
  :: d_step {
       (stage == LEVELLING || (stage == SERVING && (members & BIT(r)))) && (behind[r] & BIT(e)) && returning != BIT(r) &&
       source && (session & BIT(r)) && (session & source) && !COPY_LOCKED(e) ->
       SAY3("extent %d is levelled on %d, from %x\n", e, r, source);
       copy(INDEX(source), r, e);
       if :: behind[r] == 0 -> cold = cold & ~BIT(r) :: else fi }
  /* Resync of a returning replica. */
#ifdef SPLIT
  :: d_step {
       stage == SERVING && returning == BIT(r) && (behind[r] & BIT(e)) && !copying && MAY_COPY_FROM(return_source) &&
       (!LOCKED(e) || DROPPED(copy_without_lock)) ->
       SAY2("copy of extent %d to %d is read\n", e, r);
       copying = 1 + AT(r, e); copied_value = cached[AT(INDEX(return_source), e)] }
  :: d_step {
       copying == 1 + AT(r, e) && returning == BIT(r) && (session & BIT(r)) ->
       SAY3("copy of extent %d to %d is written: %d\n", e, r, copied_value);
       cached[AT(r, e)] = copied_value; stamp_copy(INDEX(return_source), r, e);
       behind[r] = behind[r] & ~BIT(e); copying = 0; copied_value = 0 }
  :: d_step { copying == 1 + AT(r, e) && returning != BIT(r) -> copying = 0; copied_value = 0 }
#else
  :: d_step {
       stage == SERVING && returning == BIT(r) && (behind[r] & BIT(e)) && (session & BIT(r)) && MAY_COPY_FROM(return_source) &&
       !COPY_LOCKED(e) ->
       SAY2("extent %d is copied to %d\n", e, r);
       copy(INDEX(return_source), r, e) }
#endif
  /* A read from a member. */
  :: d_step {
       stage == SERVING && FAULTS && (members & BIT(r)) && (session & BIT(r)) && !WRITING_TO(e) &&
       (!(BEHIND_SET(members) & BIT(UNIT(e))) || DROPPED(demand_read)) ->
       SAY3("extent %d is read from %d: %d\n", e, r, cached[AT(r, e)]);
       assert(!((replaced[e] >> cached[AT(r, e)]) & 1));
       replaced[e] = STARTED & ~BIT(cached[AT(r, e)]) }
#ifdef HOLES
  /* A hole's stamp is dropped when every replica of the volume, the absent too, has a note at or above it. */
  :: d_step {
       STAMP(r, e) && ((holes >> cached[AT(r, e)]) & 1) && STAMP(r, e) <= note[r] && NOTED(r, e, 0) && NOTED(r, e, 1) &&
       (REPLICAS < 3 || NOTED(r, e, REPLICAS - 1)) ->
       SAY2("replica %d forgets its hole %d\n", r, e);
       STAMP(r, e) = 0 }
#endif
  od
}
inline send(r, c) {
  if
  :: (needed | (DROPPED(return_no_writes) -> 0 : returning)) & session & BIT(r) ->
     sent[MESSAGE(r, c)] = writing[c]; sent_generation[MESSAGE(r, c)] = generation
  :: else
  fi
}

inline begin_write(c) {
  writing[c] = next_value; next_value++; written[c] = 0; write_generation[c] = generation;
  send(0, c); send(1, c);
#if REPLICAS == 3
  send(2, c);
#endif
  skip
}

/* ---- One channel of writes. */
proctype Channel(byte c) {
  do
  :: d_step {
       stage == SERVING && writing[c] == 0 && next_value <= WRITES && (!LOCKED(EXTENT_OF(c)) || DROPPED(write_overlap)) ->
       SAY2("write %d to extent %d begins\n", next_value, EXTENT_OF(c));
       begin_write(c) }
#ifdef HOLES
  :: d_step {
       stage == SERVING && writing[c] == 0 && next_value <= WRITES && !LOCKED(EXTENT_OF(c)) ->
       SAY2("unmap %d of extent %d begins\n", next_value, EXTENT_OF(c));
       holes = holes | BIT(next_value);
       begin_write(c) }
#endif
  :: d_step {
       stage == SERVING && writing[c] && (needed & ~written[c]) == 0 ->
       SAY1("write %d is acknowledged\n", writing[c]);
       assert(!((replaced[EXTENT_OF(c)] >> writing[c]) & 1) || DROPPED(write_overlap));
       replaced[EXTENT_OF(c)] = (replaced[EXTENT_OF(c)] | STARTED) & ~(UNDER_WAY(EXTENT_OF(c)));
       writing[c] = 0; written[c] = 0; write_generation[c] = 0; awaited = awaited & ~BIT(c) }
  od
}

#define ALL_COLD(set) ((set) == ((set) & answers) && ((set) & ~cold) == 0)
#define MAY_BE_SOURCE(r, set) (((set) & answers & BIT(r)) && (!(cold & BIT(r)) || ALL_COLD(set) || DROPPED(cold_source) || \
  (DROPPED(cold_source_some) && ((set) & answers & ~cold) == 0)))

inline look(each, from) {
  if
  :: (answers & members & BIT(each)) && each != from ->
     behind[each] = MUST_COPY_ALL(from, each, !DROPPED(level_own_stamps), !DROPPED(level_source_stamps))
  :: else
  fi
}

/* The take-over decides: replica r is the source, `set` the record's members that it found. */
proctype Decision(byte r; byte set) {
  do
  :: d_step {
       stage == PREPARING && (answers & BIT(r)) && ((candidates >> set) & 1) && MAY_BE_SOURCE(r, set) ->
       SAY3("T%d takes over from %d, members found %x\n", term, r, set);
       members = set; candidates = 1 << set; source = BIT(r); stage = LEVELLING;
       if
       :: ALL_COLD(set) -> replaced[0] = replaced_flushed[0]; replaced[EXTENTS - 1] = replaced_flushed[EXTENTS - 1]
       :: else
       fi;
       look(0, r); look(1, r);
#if REPLICAS == 3
       look(2, r);
#endif
       if :: DROPPED(cold_cleared_early) -> cold = cold & ~answers :: else fi }
  od
}

#define MEMBERS_IN_SESSION ((needed & ~session) == 0)
#define LEVEL_MEMBERS (DROPPED(members_not_level) -> members & answers & session : LEVEL_SET(members & answers & session))
#define RETURN_SOURCES ((DROPPED(demand_return_source) -> members : LEVEL_SET(members)) & session)
#define ENDED(c) (writing[c] == 0 || write_generation[c] >= generation)
#define ALL_LEVEL (BEHIND_SET(members) == 0)

inline serve() {
  stage = SERVING; members = proposal; needed = proposal; candidates = 1 << proposal; proposal = 0;
  cold = cold & ~(source & (DROPPED(cold_cleared_blindly) -> ALL : session)); answers = 0; record_generation = generation;
  if :: source & session :: else -> source = 0 fi
}

inline next_target() {
  SAY2("T%d dies, stage %d\n", term, stage);
  term++; stage = PREPARING; answers = 0; session = 0; source = 0; proposal = 0; needed = 0; members = 0;
  generation = (DROPPED(generation_reused) -> record_generation : BEGINS(term));
  end_return();
  behind[0] = 0; behind[1] = 0; behind[REPLICAS - 1] = 0;
  writing[0] = 0; written[0] = 0; write_generation[0] = 0;
  writing[CHANNELS - 1] = 0; written[CHANNELS - 1] = 0; write_generation[CHANNELS - 1] = 0;
  checkpoint = 0; to_note = 0
}

proctype Target() {
  do
  /* Those that are level are proposed and become the members. */
  :: d_step {
       stage == LEVELLING && LEVEL_MEMBERS ->
       proposal = LEVEL_MEMBERS; candidates = candidates | (1 << proposal); stage = RECORDING }
#ifdef DEMAND
  :: d_step {
       stage == LEVELLING && (source & session) ->
       proposal = members & answers & session; candidates = candidates | (1 << proposal); stage = RECORDING }
#endif
  :: d_step {
       stage == RECORDING ->
       SAY2("T%d serves with members %x\n", term, proposal);
       if :: !(proposal & 1) || DROPPED(members_not_level) -> behind[0] = 0 :: else fi;
       if :: !(proposal & 2) || DROPPED(members_not_level) -> behind[1] = 0 :: else fi;
#if REPLICAS == 3
       if :: !(proposal & 4) || DROPPED(members_not_level) -> behind[2] = 0 :: else fi;
#endif
       serve() }
  :: d_step {
       stage == SERVING && proposal ->
       SAY1("in force: members %x\n", proposal);
       if :: (members & ~proposal & 1) -> behind[0] = 0 :: else fi;
       if :: (members & ~proposal & 2) -> behind[1] = 0 :: else fi;
#if REPLICAS == 3
       if :: (members & ~proposal & 4) -> behind[2] = 0 :: else fi;
#endif
       if
       :: source & ~proposal ->
          source = 0;
          if :: DROPPED(demand_fault_source) -> behind[0] = 0; behind[1] = 0; behind[REPLICAS - 1] = 0 :: else fi
       :: else
       fi;
       members = proposal; needed = proposal; candidates = 1 << proposal; proposal = 0; record_generation = generation }
  /* The writes that the returning replica was not sent have ended: now the stamps tell what it lacks. */
  :: d_step {
       stage == SERVING && returning && !stamps_read && (awaited == 0 || DROPPED(return_stamps_early)) && RETURN_SOURCES ->
       return_source = BIT(INDEX(RETURN_SOURCES));
       behind[INDEX(returning)] =
         (left_over -> left_over - 1 :
           MUST_COPY_ALL(INDEX(return_source), INDEX(returning), !DROPPED(return_own_stamps), !DROPPED(return_source_stamps)));
       left_over = 0;
       SAY2("what the returning %x lacks: %x\n", returning, behind[INDEX(returning)]);
       stamps_read = 1 }
  :: d_step { stage == SERVING && returning && stamps_read && !(return_source & session & members) -> end_return() }
  /* A flush for the host. */
#if CUTS > 0
  :: d_step {
       stage == SERVING && FAULTS && (MEMBERS_IN_SESSION || DROPPED(flush_not_all)) && (ALL_LEVEL || DROPPED(demand_flush)) ->
       SAY1("the host flushes %x\n", needed & session);
       flush_set(needed & session);
       replaced_flushed[0] = replaced[0]; replaced_flushed[EXTENTS - 1] = replaced[EXTENTS - 1] }
#endif
  /* A checkpoint: move on, let older writes end, flush all, note. */
#if CHECKPOINTS > 0
  :: d_step {
       stage == SERVING && FAULTS && checkpoint != 1 && checkpoints < CHECKPOINTS ->
       SAY1("checkpoint of generation %d begins\n", generation);
       checkpoints++; generation++; checkpoint = 1; to_note = 0 }
  :: d_step {
       stage == SERVING && checkpoint == 1 && (MEMBERS_IN_SESSION || DROPPED(checkpoint_not_all)) &&
       (ALL_LEVEL || DROPPED(demand_checkpoint)) && ((ENDED(0) && ENDED(CHANNELS - 1)) || DROPPED(checkpoint_in_flight)) ->
       if :: DROPPED(checkpoint_no_flush) :: else -> flush_set(needed & session) fi;
       to_note = needed | (DROPPED(return_note_early) -> returning : 0);
       checkpoint = 2 }
#endif
  /* The target dies; the next one begins. */
  :: d_step { FAULTS && term < LAST_TERM -> next_target() }
#ifdef HEAL
  :: d_step { FAULTS && term < TERMS -> term = TERMS - 1; healed = 1; next_target() }
#endif
  od
}

#ifdef HEAL
#define EQUAL(e) (cached[AT(0, e)] == cached[AT(1, e)] && cached[AT(1, e)] == cached[AT(REPLICAS - 1, e)])

/* When nothing is left to do all replicas are members, level, warm and equal, and no write waits. */
proctype Judge() {
  timeout ->
  assert(!healed || (stage == SERVING && !proposal && !writing[0] && !writing[CHANNELS - 1]));
  assert(!healed || (members == ALL && !cold && !behind[0] && !behind[1] && !behind[REPLICAS - 1]));
  assert(!healed || (EQUAL(0) && EQUAL(EXTENTS - 1)));
  ended = 1
}
#ifdef ACYCLIC
/* No run goes on for ever after the faults. Found as an acceptance cycle. */
never {
  do
  :: true
  :: healed && !ended -> goto accept_for_ever
  od;
accept_for_ever:
  do
  :: healed && !ended
  od
}
#endif

#endif

init {
  byte i; byte set;
  atomic {
    READ_MUTATION;
    generation = BEGINS(1);
    candidates = 1 << ALL;
    record_generation = generation;
    run Target();
#ifdef HEAL
    run Judge();
#endif
    for (i : 0 .. CHANNELS - 1) { run Channel(i) }
    for (i : 0 .. REPLICAS - 1) {
      run Replica(i); run Extent(i, 0);
      if :: EXTENTS == 2 -> run Extent(i, EXTENTS - 1) :: else fi;
      for (set : 1 .. ALL) {
        if :: set & BIT(i) -> run Decision(i, set) :: else fi
      }
    }
    i = 0; set = 0
  }
}
