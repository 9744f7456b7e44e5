/*
 * Who may write: promises, records, the witness, take-over, fault, return, leases. See README.md.
 *
 * An action system: every option of a do-loop is one atomic step. Target(t) is the target with term t, Link(t, v) what
 * happens between it and voter v. Voters are the replicas 0 .. REPLICAS-1 and the witness, number REPLICAS.
 *
 *   REPLICAS   2 or 3
 *   TERMS      highest term: 1 serves at the start, the others may begin to take over at any time, in any order
 *   WRITES     writes, each of a value of its own to the one extent
 *   CHANGES    membership changes (fault, return) that all targets together may propose
 *   AMNESIA    the witness may lose its store once
 *   ACYCLIC    with HEAL: look for runs that go on for ever after the faults, not for errors at their end
 *   HEAL       faults end once, at any time; from then on the highest term alone works and must come to serve
 *   LATE       a proposal that was replaced by the next one may still arrive
 *   FALLBACK   a take-over may go by the record before the newest, when that never was in force; it does so whenever it
 *              may, also where src/mirror/quorum.cc does not, which asks first whether the newest would do
 *   SYMMETRY   states that differ only by the names of the replicas are one
 *
 * What needs no step of its own. A replica that is down is one to which nothing is delivered. A message lost is one that
 * is never delivered. An answer lost is one that the target never acts upon: acknowledgements only ever enable steps of
 * the target, so a state with more of them can do all that one with fewer can. Any member may be suspected at any time.
 * A lease given by a voter has run out when that voter answers a prepare, the latest moment that lease.pml permits.
 */
#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef TERMS
#define TERMS 2
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef CHANGES
#define CHANGES 1
#endif

/* Rules to drop, one a run: the environment variable MUTATION names it. */
#define MUTATIONS(X) \
  X(no_term_fence) X(no_session) X(record_any_term) X(record_older) \
  X(promise_forgotten) X(oldest_record) X(no_majority) X(no_prior) X(no_repeat) X(source_not_member) X(no_level) \
  X(own_prior) X(term_reused) X(term_without_writer) \
  X(ack_by_one) X(ack_without_proposed) X(read_in_flight) X(fault_no_record) X(fault_prior_last) \
  X(return_no_copy) X(return_no_writes) X(read_no_lease) X(one_lease) X(lease_without_witness) \
  X(reseed_unconfirmed) X(reseed_by_old_term) X(blank_votes) X(no_return_after_heal) X(never_settled) \
  X(fallback_unasked)
#include "mutation.inc.pml"

#define ALL ((1 << REPLICAS) - 1)
#define WITNESS REPLICAS
#define BIT(v) (1 << (v))
#define COUNT(set) (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1) + (((set) >> 3) & 1))
#define VOTERS(members) ((members) | (((COUNT(members) & 1) == 0) -> BIT(WITNESS) : 0))
#define MAJORITY(who, members) (2 * COUNT((who) & VOTERS(members)) > COUNT(VOTERS(members)))

/* The steps tell what they do; only a replayed counterexample prints it. Sets of replicas are printed as bits. */
#define SAY2(text, a, b) printf(text, a, b)
#define SAY3(text, a, b, c) printf(text, a, b, c)
#define SAY4(text, a, b, c, d) printf(text, a, b, c, d)

/* ---- Voters. All of it is durable. */
byte promised[REPLICAS + 1];      /* the highest term prepared */
byte answered[REPLICAS + 1];      /* the highest term whose prepare was answered: leases of lower ones have run out */
byte record_term[REPLICAS + 1];
byte record_number[REPLICAS + 1]; /* with the term: the record's generation */
byte record_members[REPLICAS + 1];
byte record_prior[REPLICAS + 1];
byte value[REPLICAS];
bit blank = 0;                    /* the witness lost its store and has not been written to since */

/* ---- Targets. All of it is lost with the target. */
#define PREPARING 1               /* collects answers */
#define LEVELLING 2
#define REPEATING 3               /* brings the record that it found into force under its own term */
#define RECORDING 4               /* brings its own record into force */
#define SERVING 5
#define DEAD 6
byte stage[TERMS + 1];
byte answers[TERMS + 1];          /* voters that answered its prepare */
byte newest_term[TERMS + 1];      /* the newest record among the answers; _members and _prior are kept until it serves */
byte newest_number[TERMS + 1];
byte newest_members[TERMS + 1];
byte newest_prior[TERMS + 1];
byte reached[TERMS + 1];          /* members of that record that answered */
byte level[TERMS + 1];            /* those that hold what the source holds */
byte source[TERMS + 1];           /* as a set of one */
byte in_force[TERMS + 1];         /* members of the record in force */
byte needed[TERMS + 1];           /* members of the records proposed since */
byte proposal[TERMS + 1];         /* members proposed, 0 if nothing is open */
byte proposal_prior[TERMS + 1];
byte proposal_number[TERMS + 1];
byte proposal_votes[TERMS + 1];
byte writing[TERMS + 1];          /* the value being written, 0 if none */
byte written[TERMS + 1];          /* replicas that acknowledged it */
byte session[TERMS + 1];          /* replicas with a session of this term */
byte in_flight[(TERMS + 1) * REPLICAS]; /* values sent and not arrived; they outlive their target */
#define IN_FLIGHT(t, r) in_flight[(t) * REPLICAS + (r)]
#ifdef LATE
byte late[TERMS + 1]; byte late_prior[TERMS + 1]; byte late_number[TERMS + 1];
#endif
#ifdef AMNESIA
bit knows_blank[TERMS + 1];       /* its open proposal was made after the witness told that it is blank (a mutation) */
bit confirmed[TERMS + 1];         /* such a proposal came into force */
byte highest_heard = 1;           /* the highest term that any voter promised */
byte last_old_term = 0;           /* the highest term heard of when the witness lost its store */
#endif

/* ---- The observer. Values are sets of bits here. */
byte next_value = 1;
byte outdated = 0;                /* no read may return these any more */
byte effective = 1;               /* writes that took effect, acknowledged or not */
byte newest_in_force = 1;         /* the highest term that came into force */
byte changes = 0;
bit healed = 0;
bit ended = 0;                    /* nothing is left to do */
byte up = 0;                      /* after the faults: voters that can be reached */
bit forgot = 0;

hidden byte prior_chosen;         /* these live within one step */
hidden byte older_term; hidden byte older_number; hidden byte older_prior;

#define STARTED ((1 << next_value) - 1)
#define OLDER_THAN(v) ((1 << (v)) - 1)

/* Terms compare as (number, writer): 2 and 3 are told apart by their writers where numbers were given out twice. */
#define NUMBER(t) (((t) == 3 && DROPPED(term_without_writer)) -> 2 : (t))
#define PROMISED_TO(v, t) (NUMBER(promised[v]) == NUMBER(t))
#define NEWER(t, number, v) (NUMBER(t) > NUMBER(record_term[v]) || (NUMBER(t) == NUMBER(record_term[v]) && (number) > record_number[v]))
#define LINKED(t, r) (PROMISED_TO(r, t) && (session[t] & BIT(r)))
#define LINKED_SET(t) ((LINKED(t, 0) -> 1 : 0) | (LINKED(t, 1) -> 2 : 0) | ((REPLICAS == 3 && LINKED(t, REPLICAS - 1)) -> 4 : 0))
#define OPEN(t) (in_force[t] | needed[t])
#define REACHABLE(t, v) (!healed || (t == TERMS && (up & BIT(v))))
#define FAULTS (!healed)

#define ENOUGH(who, members, prior) (DROPPED(no_majority) -> ((who) & (members)) : \
  (MAJORITY(who, members) && (DROPPED(no_prior) || MAJORITY(who, prior))))

/* Leases of the voters that have answered nothing newer; the witness grants none, but counts. */
#define LEASES(t) ((answered[0] <= t -> 1 : 0) | (answered[1] <= t -> 2 : 0) | ((REPLICAS == 3 && answered[REPLICAS - 1] <= t) -> 4 : 0))
#define MAY_READ(t) (DROPPED(read_no_lease) || (DROPPED(one_lease) && LEASES(t)) || MAJORITY(LEASES(t), in_force[t]) || \
  (DROPPED(lease_without_witness) && 2 * COUNT(LEASES(t) & in_force[t]) >= COUNT(in_force[t])))

#if defined(SYMMETRY) && (defined(LATE) || defined(HEAL))
#error "symmetry.inc.pml does not know the variables of LATE and HEAL"
#endif
#ifdef SYMMETRY
#include "symmetry.inc.pml"
#define DONE ; CANONICAL
#else
#define DONE
#endif

/* What the replicas of a set hold: the same, else the search has failed already. */
#define VALUE_OF(set) (((set) & 1) -> value[0] : (((set) & 2) -> value[1] : value[REPLICAS - 1]))

inline propose(t, whom, before) {
#ifdef LATE
  late[t] = proposal[t]; late_prior[t] = proposal_prior[t]; late_number[t] = proposal_number[t];
#endif
#ifdef AMNESIA
  knows_blank[t] = 0;
#endif
  proposal_prior[t] = before;  /* first: it may be made of the proposal that is replaced */
  proposal[t] = whom;
  proposal_number[t]++;
  proposal_votes[t] = 0
}

inline withdraw(t) {
  proposal[t] = 0; proposal_prior[t] = 0; proposal_votes[t] = 0
}

inline forget_answers(t) {
  answers[t] = 0; newest_term[t] = 0; newest_number[t] = 0
}

inline die(t) {
  stage[t] = (DROPPED(term_reused) && stage[t] == SERVING -> PREPARING : DEAD);
  forget_answers(t); newest_members[t] = 0; newest_prior[t] = 0; reached[t] = 0; level[t] = 0; source[t] = 0;
  in_force[t] = 0; needed[t] = 0; withdraw(t); proposal_number[t] = 0; writing[t] = 0; written[t] = 0; session[t] = 0
#ifdef LATE
  ; late[t] = 0; late_prior[t] = 0; late_number[t] = 0
#endif
#ifdef AMNESIA
  ; knows_blank[t] = 0; confirmed[t] = 0
#endif
}

/* A promise: durable. It refuses what is older and has ended what it took from it. */
inline promise(t, v) {
  if
  :: promised[v] < t ->
     promised[v] = t;
#ifdef AMNESIA
     if :: highest_heard < t -> highest_heard = t :: else fi;
#endif
     if
     :: v < REPLICAS && !DROPPED(no_term_fence) ->
        IN_FLIGHT(1, v % REPLICAS) = 0;
#if TERMS >= 3
        if :: t > 2 && !DROPPED(term_without_writer) -> IN_FLIGHT(2, v % REPLICAS) = 0 :: else fi;
#endif
#if TERMS >= 4
        if :: t > 3 -> IN_FLIGHT(3, v % REPLICAS) = 0 :: else fi;
#endif
        skip
     :: else
     fi
  :: else
  fi
}

inline take_record(v, t, position, whom, before) {
  record_term[v] = t; record_number[v] = position; record_members[v] = whom; record_prior[v] = before
}

/* What happens between target t and voter v, be it replica or witness. */
proctype Vote(byte t; byte v) {
  do
  /* The promise may be all that happens: its answer is lost. A target that serves prepares whom it takes back. */
  :: d_step {
       (stage[t] == PREPARING || (stage[t] == SERVING && !(OPEN(t) & BIT(v)))) && promised[v] < t && FAULTS &&
       (v != WITNESS || !blank || DROPPED(blank_votes)) ->
       SAY2("voter %d promises T%d\n", v, t);
       promise(t, v) DONE }
  :: d_step {
       stage[t] == PREPARING && REACHABLE(t, v) && (promised[v] < t || PROMISED_TO(v, t)) && !(answers[t] & BIT(v)) &&
       (v != WITNESS || !blank || DROPPED(blank_votes)) ->
       SAY4("voter %d answers T%d: members %x prior %x\n", v, t, record_members[v], record_prior[v]);
       promise(t, v);
       answers[t] = answers[t] | BIT(v);
       if :: v < REPLICAS -> session[t] = session[t] | BIT(v) :: else fi;
       if :: answered[v] < t -> answered[v] = t :: else fi;
       if
       :: record_term[v] > newest_term[t] || (record_term[v] == newest_term[t] && record_number[v] > newest_number[t]) ||
          (DROPPED(oldest_record) && newest_members[t] &&
              (record_term[v] < newest_term[t] || (record_term[v] == newest_term[t] && record_number[v] < newest_number[t]))) ->
          newest_term[t] = record_term[v]; newest_number[t] = record_number[v];
          newest_members[t] = record_members[v]; newest_prior[t] = record_prior[v]
       :: else
       fi DONE }
  /* The proposal arrives. */
  :: d_step {
       proposal[t] && REACHABLE(t, v) && (PROMISED_TO(v, t) || DROPPED(record_any_term)) && NEWER(t, proposal_number[t], v) &&
       (v != WITNESS || !blank || DROPPED(blank_votes)) ->
       SAY4("voter %d takes T%d's record: members %x prior %x\n", v, t, proposal[t], proposal_prior[t]);
       take_record(v, t, proposal_number[t], proposal[t], proposal_prior[t]);
       proposal_votes[t] = proposal_votes[t] | BIT(v) DONE }
#ifdef LATE
  :: d_step {
       late[t] && REACHABLE(t, v) && PROMISED_TO(v, t) && (NEWER(t, late_number[t], v) ||
         (DROPPED(record_older) && record_number[v] != late_number[t])) ->
       SAY4("voter %d takes T%d's older record: members %x prior %x\n", v, t, late[t], late_prior[t]);
       take_record(v, t, late_number[t], late[t], late_prior[t]) DONE }
#endif
  od
}

#ifdef FALLBACK
/* Voters that answered, obey still, and do not have the newest record: they never had it, and will not take it. (One that
   obeys a later target meanwhile told t what it had before: that t decided before is a run of its own.) */
#define WITHOUT(t, v) ((answers[t] & BIT(v)) && PROMISED_TO(v, t) && (record_term[v] < newest_term[t] || \
  (record_term[v] == newest_term[t] && record_number[v] < newest_number[t])) -> BIT(v) : 0)
#define ALL_WITHOUT(t) (WITHOUT(t, 0) | WITHOUT(t, 1) | WITHOUT(t, 2) | (REPLICAS == 3 -> WITHOUT(t, REPLICAS) : 0))
#define IS_DEAD(t, set) (2 * COUNT(ALL_WITHOUT(t) & VOTERS(set)) >= COUNT(VOTERS(set)))
#define NEVER_IN_FORCE(t) (IS_DEAD(t, newest_members[t]) || IS_DEAD(t, newest_prior[t]) || DROPPED(fallback_unasked))
/* The newest of the records that it was to replace. */
#define LOOK_AT(t, v) \
  if \
  :: WITHOUT(t, v) && record_members[v] == newest_prior[t] && \
     (record_term[v] > older_term || (record_term[v] == older_term && record_number[v] >= older_number)) -> \
     older_term = record_term[v]; older_number = record_number[v]; older_prior = record_prior[v] \
  :: else \
  fi
#endif

#define ONE_LESS(t) (in_force[t] & ~BIT(r))
#define ONE_MORE(t) (in_force[t] | BIT(r))

/* What happens between target t and replica r. */
proctype Link(byte t; byte r) {
  do
  /* It becomes the source. What it holds is from now on the content of the volume. */
  :: d_step {
       stage[t] == PREPARING && newest_members[t] && ENOUGH(answers[t], newest_members[t], newest_prior[t]) &&
       (answers[t] & session[t] & BIT(r)) && ((newest_members[t] & BIT(r)) || DROPPED(source_not_member)) ->
       SAY3("T%d chooses source %d with value %d\n", t, r, value[r]);
       reached[t] = newest_members[t] & answers[t] & ALL | BIT(r);
       stage[t] = LEVELLING; source[t] = BIT(r); level[t] = BIT(r);
       effective = effective | (1 << value[r]);
       forget_answers(t) DONE }
#ifdef FALLBACK
  /* The newest record came to nothing: the one that it was to replace counts. */
  :: d_step {
       stage[t] == PREPARING && newest_members[t] && newest_members[t] != newest_prior[t] &&
       (answers[t] & session[t] & newest_prior[t] & BIT(r)) && NEVER_IN_FORCE(t) ->
       older_term = 0; older_number = 0; older_prior = 0;
       LOOK_AT(t, 0); LOOK_AT(t, 1); LOOK_AT(t, 2);
#if REPLICAS == 3
       LOOK_AT(t, REPLICAS);
#endif
       if
       :: older_prior && ENOUGH(answers[t], newest_prior[t], older_prior) ->
          SAY3("T%d falls back, and chooses source %d with value %d\n", t, r, value[r]);
          newest_members[t] = newest_prior[t]; newest_prior[t] = older_prior;
          reached[t] = newest_members[t] & answers[t] & ALL;
          stage[t] = LEVELLING; source[t] = BIT(r); level[t] = BIT(r);
          effective = effective | (1 << value[r]);
          forget_answers(t)
       :: else
       fi DONE }
#endif
  :: d_step {
       stage[t] == LEVELLING && (reached[t] & ~level[t] & BIT(r)) && REACHABLE(t, r) && LINKED(t, r) &&
       (LINKED_SET(t) & source[t]) ->
       SAY2("T%d levels %d\n", t, r);
       level[t] = level[t] | BIT(r);
       if :: DROPPED(no_level) :: else -> value[r] = VALUE_OF(source[t]) fi DONE }
  /* A fault: the replica is down, slow or only suspected. */
  :: d_step {
       stage[t] == SERVING && FAULTS && (in_force[t] & BIT(r)) && in_force[t] != BIT(r) && changes < CHANGES &&
       proposal[t] != ONE_LESS(t) ->
       SAY2("T%d faults %d\n", t, r);
       changes++;
       prior_chosen = ((DROPPED(fault_prior_last) && proposal[t]) -> proposal[t] : in_force[t]);
       propose(t, ONE_LESS(t), prior_chosen);
       needed[t] = needed[t] | proposal[t] DONE }
  /* A return: prepared, a new session (what older ones sent has ended), copied, flushed, proposed. */
  :: d_step {
       stage[t] == SERVING && REACHABLE(t, r) && !(OPEN(t) & BIT(r)) && PROMISED_TO(r, t) && writing[t] == 0 &&
       (changes < CHANGES || (healed && !proposal[t] && !DROPPED(no_return_after_heal))) && (LINKED_SET(t) & in_force[t]) ->
       SAY2("T%d takes %d back\n", t, r);
       if :: DROPPED(no_session) :: else -> IN_FLIGHT(t, r) = 0 fi;
       if :: answered[r] < t -> answered[r] = t :: else fi;
       if :: DROPPED(return_no_copy) :: else -> value[r] = VALUE_OF(LINKED_SET(t) & in_force[t]) fi;
       session[t] = session[t] | BIT(r);
       if :: !healed -> changes++ :: else fi;
       propose(t, ONE_MORE(t), in_force[t]);
       needed[t] = needed[t] | proposal[t] DONE }
  /* After the faults a replica that slept through the take-over is prepared now. */
  :: d_step { stage[t] == SERVING && healed && REACHABLE(t, r) && promised[r] < t -> promise(t, r) DONE }
  /* A write arrives, and its answer with it. */
  :: d_step {
       IN_FLIGHT(t, r) && (PROMISED_TO(r, t) || (DROPPED(no_term_fence) && promised[r] >= t)) ->
       SAY3("T%d's write of %d arrives at %d\n", t, IN_FLIGHT(t, r), r);
       value[r] = IN_FLIGHT(t, r);
       if :: writing[t] == IN_FLIGHT(t, r) -> written[t] = written[t] | BIT(r) :: else fi;
       IN_FLIGHT(t, r) = 0 DONE }
  :: d_step {
       stage[t] == SERVING && FAULTS && (in_force[t] & BIT(r)) && LINKED(t, r) && MAY_READ(t) &&
       (writing[t] == 0 || DROPPED(read_in_flight)) ->
       SAY3("T%d reads %d from %d\n", t, value[r], r);
       assert(!((outdated >> value[r]) & 1));
       outdated = STARTED & ~(1 << value[r]) & ~(writing[t] -> (1 << writing[t]) : 0) DONE }
  od
}

inline send(t, r) {
  if
  :: ((DROPPED(return_no_writes) -> in_force[t] : OPEN(t)) & BIT(r)) && LINKED(t, r) -> IN_FLIGHT(t, r) = writing[t]
  :: else
  fi
}

#define NEEDED(t) (DROPPED(ack_by_one) && written[t] -> 0 : (DROPPED(ack_without_proposed) -> in_force[t] : \
  (DROPPED(return_no_writes) -> in_force[t] : (DROPPED(fault_no_record) && proposal[t] -> in_force[t] & proposal[t] : OPEN(t)))))

proctype Target(byte t) {
  do
  /* Levelled: those that are level become the members. A record that may not be in force is repeated first. */
  :: d_step {
       stage[t] == LEVELLING && (FAULTS || level[t] == reached[t]) ->
       SAY2("T%d has levelled %x\n", t, level[t]);
       if
       :: newest_members[t] != newest_prior[t] && !DROPPED(no_repeat) && !DROPPED(no_prior) && !DROPPED(no_majority) ->
          propose(t, newest_members[t], newest_prior[t]); stage[t] = REPEATING
       :: else ->
          prior_chosen = (DROPPED(own_prior) -> level[t] : newest_members[t]);
          propose(t, level[t], prior_chosen); stage[t] = RECORDING
       fi;
       reached[t] = 0; source[t] = 0; newest_prior[t] = 0 DONE }
  /* The open proposal is in force. */
  :: d_step {
       proposal[t] && MAJORITY(proposal_votes[t], proposal[t]) && MAJORITY(proposal_votes[t], proposal_prior[t]) ->
       SAY3("T%d: in force: members %x prior %x\n", t, proposal[t], proposal_prior[t]);
       if
       :: stage[t] == REPEATING -> propose(t, level[t], newest_members[t]); stage[t] = RECORDING
       :: else ->
          if
          :: t > newest_in_force -> newest_in_force = t; effective = effective | (1 << VALUE_OF(proposal[t]))
          :: else
          fi;
          stage[t] = SERVING; in_force[t] = proposal[t]; needed[t] = 0; level[t] = 0; newest_members[t] = 0;
#ifdef AMNESIA
          confirmed[t] = knows_blank[t];
#endif
          if
          :: proposal_prior[t] != proposal[t] && !DROPPED(never_settled) -> propose(t, in_force[t], in_force[t])
          :: else -> withdraw(t)
          fi
       fi DONE }
  :: d_step {
       stage[t] == SERVING && writing[t] == 0 && next_value <= WRITES ->
       SAY2("T%d begins to write %d\n", t, next_value);
       writing[t] = next_value; next_value++; written[t] = 0;
       send(t, 0); send(t, 1);
#if REPLICAS == 3
       send(t, 2);
#endif
       skip DONE }
  /* The write is acknowledged. The host may see that late, when a later target serves: then it must have taken effect. */
  :: d_step {
       stage[t] == SERVING && writing[t] && (NEEDED(t) & ~written[t]) == 0 ->
       SAY2("T%d's write of %d is acknowledged\n", t, writing[t]);
       if
       :: newest_in_force <= t ->
          assert(!((outdated >> writing[t]) & 1));
          outdated = STARTED & ~(1 << writing[t]);
          effective = effective | (1 << writing[t])
       :: else ->
          assert((effective >> writing[t]) & 1);
          if :: !((outdated >> writing[t]) & 1) -> outdated = outdated | OLDER_THAN(writing[t]) :: else fi
       fi;
       writing[t] = 0; written[t] = 0 DONE }
#ifdef AMNESIA
  /* A witness that lost its store abstains until a target writes to it that came into force, without it, under a term
     given out after the loss: what the witness had promised to older terms nobody knows any more. */
  :: d_step {
       blank && stage[t] == SERVING && !proposal[t] && !confirmed[t] && DROPPED(reseed_by_old_term) ->
       SAY2("T%d confirms its record without the witness\n", t, t);
       propose(t, in_force[t], in_force[t]); knows_blank[t] = 1 DONE }
  :: d_step {
       blank && stage[t] == SERVING && !proposal[t] &&
       (t > last_old_term || confirmed[t] || DROPPED(reseed_unconfirmed)) ->
       SAY2("T%d writes its record %x to the blank witness\n", t, in_force[t]);
       blank = 0; confirmed[t] = 0;
       promised[WITNESS] = t; answered[WITNESS] = t;
       take_record(WITNESS, t, proposal_number[t], in_force[t], in_force[t]) DONE }
#endif
  :: d_step { FAULTS && stage[t] < DEAD && stage[t] > 0 && !(DROPPED(term_reused) && stage[t] == PREPARING) -> SAY2("T%d dies, stage %d\n", t, stage[t]); die(t) DONE }
  od
}

#ifdef HEAL
inline heal() {
  die(1);
#if TERMS >= 3
  die(2);
#endif
#if TERMS >= 4
  die(3);
#endif
  stage[TERMS] = PREPARING;
  up = (1 << (REPLICAS + 1)) - 1
}
#endif

/* What a voter may suffer beyond silence. */
proctype Faults() {
  do
#ifdef AMNESIA
  :: d_step {
       FAULTS && !forgot -> SAY2("the witness loses its store; %d was its promise, %x its members\n", promised[WITNESS], record_members[WITNESS]); forgot = 1; blank = 1; last_old_term = highest_heard;
       /* What it had is gone. Blank and voting (the mutation) it has what a rebuild from one replica gives. */
       promised[WITNESS] = 0; answered[WITNESS] = 0; record_term[WITNESS] = 0; record_number[WITNESS] = 0;
       if
       :: DROPPED(blank_votes) -> take_record(WITNESS, record_term[0], record_number[0], record_members[0], record_prior[0])
       :: else -> record_members[WITNESS] = 0; record_prior[WITNESS] = 0
       fi DONE }
#endif
  :: d_step {
       DROPPED(promise_forgotten) && FAULTS && !forgot && promised[0] > 1 -> forgot = 1; promised[0] = 1; answered[0] = 1 DONE }
#ifdef HEAL
  :: d_step { FAULTS && stage[TERMS] == 0 -> healed = 1; heal() DONE }
#endif
  od
}

#ifdef HEAL
/* The newest record among the voters in up: one that is not newer than the best so far changes nothing. */
hidden byte best_term; hidden byte best_number; hidden byte best_members; hidden byte best_prior;
#define IS_UP(v) ((up & BIT(v)) && !((v) == WITNESS && blank))
#define BETTER(v) \
  if \
  :: IS_UP(v) && (record_term[v] > best_term || (record_term[v] == best_term && record_number[v] >= best_number)) -> \
     best_term = record_term[v]; best_number = record_number[v]; \
     best_members = record_members[v]; best_prior = record_prior[v] \
  :: else \
  fi
#define SPEAKING (up & ~(blank -> BIT(WITNESS) : 0))

/* Any set of voters may stay away for good, as long as the rules promise that the volume comes back without them. */
proctype Absence() {
  byte v;
  do
  :: d_step {
       healed && stage[TERMS] == PREPARING && answers[TERMS] == 0 && v <= REPLICAS ->
       up = up & ~BIT(v);
       best_term = 0; best_number = 0; best_members = 0; best_prior = 0;
       BETTER(0); BETTER(1); BETTER(2);
#if REPLICAS == 3
       BETTER(3);
#endif
       if
       :: best_members && MAJORITY(SPEAKING, best_members) && MAJORITY(SPEAKING, best_prior) && (up & best_members)
       :: else -> up = up | BIT(v)
       fi;
       v++ }
  :: d_step { healed && stage[TERMS] == PREPARING && answers[TERMS] == 0 && v <= REPLICAS -> v++ }
  od
}

#define HOLDS_SETTLED(v) (record_term[v] == TERMS && record_members[v] == in_force[TERMS] && \
  record_prior[v] == in_force[TERMS] -> BIT(v) : 0)
#define HOLD_SETTLED (HOLDS_SETTLED(0) | HOLDS_SETTLED(1) | HOLDS_SETTLED(2) | (REPLICAS == 3 -> HOLDS_SETTLED(REPLICAS) : 0))

/* When nothing is left to do the volume serves, is settled, whole and equal, and no write waits. */
proctype Judge() {
  timeout ->
  assert(!healed || (stage[TERMS] == SERVING && !proposal[TERMS] && !writing[TERMS]));
  assert(!healed || in_force[TERMS] == (up & ALL));
  assert(!healed || MAJORITY(HOLD_SETTLED, in_force[TERMS]));
  assert(!healed || ((!(up & 1) || value[0] == VALUE_OF(up)) && (!(up & 2) || value[1] == VALUE_OF(up)) &&
                     (REPLICAS < 3 || !(up & 4) || value[REPLICAS - 1] == VALUE_OF(up))));
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
  byte t; byte v;
  atomic {
    READ_MUTATION;
    for (v : 0 .. REPLICAS) {
      promised[v] = 1; answered[v] = 1; record_term[v] = 1; record_members[v] = ALL; record_prior[v] = ALL
    }
    stage[1] = SERVING; in_force[1] = ALL; session[1] = ALL;
    for (t : 2 .. TERMS) { stage[t] = PREPARING }
#ifdef HEAL
    stage[TERMS] = 0;
    run Absence(); run Judge();
#endif
    run Faults();
    for (t : 1 .. TERMS) {
      run Target(t);
      for (v : 0 .. REPLICAS) {
        run Vote(t, v);
        if :: v < REPLICAS -> run Link(t, v) :: else fi
      }
    }
    t = 0; v = 0
  }
}
