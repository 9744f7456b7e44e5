/*
 * Leases with clocks. See README.md. Shows what replication.pml takes for granted: when a voter answers the prepare of a
 * newer target, no older target takes a lease of that voter for valid.
 *
 * One voter, one target that renews its lease, one prepare. A tick is the unit of time; both clocks tick together (the
 * drift that is permitted is taken off LEASE on the target's side, as MARGIN, and one clock may gain that much).
 *
 *   LEASE      ticks that a lease lasts, for the voter
 *   MARGIN     ticks by which the target counts less; also how far its clock may fall behind during a lease
 *   TICKS      length of a run
 *   REQUESTS   renewals under way at once
 */
#ifndef LEASE
#define LEASE 4
#endif
#ifndef MARGIN
#define MARGIN 1
#endif
#ifndef TICKS
#define TICKS 14
#endif
#define REQUESTS 2

#define MUTATIONS(X) \
  X(answer_at_once) X(restart_forgets) X(counted_from_answer) X(no_margin) X(clock_stops_in_suspend) X(grant_after_promise)
#include "mutation.inc.pml"

#define SAY1(text, a) printf(text, a)

byte now_ticks = 0;
/* The voter. */
byte granted = 0;               /* ticks that its last grant still runs; volatile */
byte waiting = 0;               /* ticks for which a voter that has just started answers no prepare */
bit promised = 0;               /* to the newer target; durable */
bit answered = 0;
/* The target. */
byte lease = 0;                 /* ticks that it takes the lease for valid */
byte slow = 0;                  /* ticks that its clock has fallen behind, since it holds this lease */
bit suspended = 0;
/* Renewals. Age is counted by the target's clock from when it was sent. */
#define FREE 0
#define ASKED 1
#define GRANTED 2
byte request[REQUESTS];
byte age[REQUESTS];

#define COUNTED(i) (DROPPED(counted_from_answer) -> 0 : age[i])
#define LENGTH (DROPPED(no_margin) -> LEASE : LEASE - MARGIN)

inline age_request(i) {
  if :: request[i] != FREE && age[i] < LEASE -> age[i]++ :: else fi
}

inline voter_ticks() {
  if :: granted -> granted-- :: else fi;
  if :: waiting -> waiting-- :: else fi
}

inline target_ticks() {
  if :: lease -> lease-- :: else fi;
  age_request(0); age_request(1)
}

proctype Time() {
  do
  /* CLOCK_BOOTTIME goes on while the target is suspended. */
  :: d_step {
       now_ticks < TICKS ->
       now_ticks++; voter_ticks();
       if :: suspended && DROPPED(clock_stops_in_suspend) :: else -> target_ticks() fi;
       if :: lease == 0 && request[0] == FREE && request[1] == FREE -> slow = 0 :: else fi }
  /* Drift: the target's clock misses a tick, no more than MARGIN of them while a lease or a request for one lives. */
  :: d_step {
       now_ticks < TICKS && slow < MARGIN ->
       now_ticks++; voter_ticks(); slow++ }
  od
}

proctype Renewal(byte i) {
  do
  :: d_step { request[i] == FREE && !suspended -> SAY1("request %d is sent\n", i); request[i] = ASKED; age[i] = 0 }
  :: d_step {
       request[i] == ASKED && (!promised || DROPPED(grant_after_promise)) ->
       SAY1("the voter grants request %d\n", i);
       request[i] = GRANTED; granted = LEASE }
  :: d_step {
       request[i] == GRANTED && !suspended ->
       SAY1("grant %d arrives\n", i);
       if :: COUNTED(i) < LENGTH && lease < LENGTH - COUNTED(i) -> lease = LENGTH - COUNTED(i) :: else fi;
       request[i] = FREE; age[i] = 0 }
  :: d_step { request[i] != FREE -> request[i] = FREE; age[i] = 0 }
  od
}

proctype Voter() {
  do
  :: d_step { !promised -> SAY1("the voter promises, lease %d\n", granted); promised = 1 }
  :: d_step {
       promised && !answered && ((granted == 0 && waiting == 0) || DROPPED(answer_at_once)) ->
       SAY1("the voter answers, the target's lease is %d\n", lease);
       answered = 1 }
  :: d_step {
       granted || waiting ->
       SAY1("the voter restarts, lease %d\n", granted);
       granted = 0; waiting = (DROPPED(restart_forgets) -> 0 : LEASE) }
  od
}

proctype Target() {
  do
  :: d_step { suspended = 1 - suspended }
  /* A read: its lease must not have run out for the voter. */
  :: d_step { lease && !suspended && answered -> assert(false) }
  od
}

init {
  atomic {
    READ_MUTATION;
    run Time(); run Renewal(0); run Renewal(1); run Voter(); run Target()
  }
}
