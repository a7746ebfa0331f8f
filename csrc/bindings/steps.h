/* Steps of a plan from their descriptions. */
#ifndef NDQ_STEPS_H
#define NDQ_STEPS_H

#include "args.h"

#include "../plan.h"

/* One step while it is made from ("kind", inputs, output, *constants): `step` has its inputs and output already. */
typedef struct {
    PyObject *module, *constants;
    PyObject *kept; /* list of the objects whose memory the steps point to; nobody else may write to it */
    const ndq_plan_value *value;
    ndq_step *step;
    size_t number;
    const char *kind;
} ndq_step_maker;

typedef struct {
    const char *name;
    size_t inputs;
    int (*make)(ndq_step_maker *m); /* 0, or -1 with an exception set */
} ndq_step_kind;

/* NULL if there is no kind of that name. */
const ndq_step_kind *ndq_find_step_kind(PyObject *name);

#endif
