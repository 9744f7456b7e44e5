/*
 * Included by each model after MUTATIONS(X) has listed the rules that it can drop. DROPPED(rule) is true when the
 * environment variable MUTATION names that rule: one compiled search serves a size, its mutations and their control.
 * `dropped` is hidden, so it is no part of a state.
 */
#define AS_NAME(rule) rule,
mtype = { MUTATIONS(AS_NAME) none };
hidden byte dropped = none;
#define DROPPED(rule) (dropped == rule)

c_decl {
\#include <stdio.h>
\#include <stdlib.h>
\#include <string.h>
  static int wanted;
  static void look_for(const char* rule) {
    const char* const name = getenv("MUTATION");
    wanted = strcmp(name == NULL || name[0] == 0 ? "none" : name, rule) == 0;
  }
}

#define READ_ONE(rule) c_code { look_for(#rule); }; if :: c_expr { wanted } -> dropped = rule :: else fi;
#define READ_MUTATION dropped = 0; MUTATIONS(READ_ONE) READ_ONE(none) assert(dropped != 0)
