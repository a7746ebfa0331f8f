/* A function of one code, by its table. */
#include "../plan.h"

ndq_status ndq_step_lookup(const ndq_step *step, uint8_t *const *values)
{
    ndq_lookup call = step->work.lookup;
    call.q = values[step->in[0]];
    call.out = values[step->out];
    ndq_lookup_codes(&call);
    return NDQ_OK;
}
