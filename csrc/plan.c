#include "plan.h"

/* An arena begins with the addresses of all values. */
static size_t table_bytes(const ndq_plan *plan)
{
    return ndq_round_up(plan->values * sizeof(uint8_t *), NDQ_ALIGN);
}

static uint8_t *new_arena(const ndq_plan *plan)
{
    size_t bytes;
    return __builtin_add_overflow(table_bytes(plan), plan->arena_bytes, &bytes) ? NULL : ndq_alloc(bytes);
}

ndq_status ndq_plan_init(ndq_plan *plan, size_t arrays, size_t values, size_t steps, size_t parts, size_t arena_bytes)
{
    *plan = (ndq_plan){
        .arrays = arrays, .values = values, .steps = steps, .parts = parts, .arena_bytes = arena_bytes};
    plan->value = ndq_alloc(values * sizeof(*plan->value));
    plan->step = ndq_alloc(steps * sizeof(*plan->step));
    plan->arena = new_arena(plan);
    if (!plan->value || !plan->step || !plan->arena) {
        ndq_plan_free(plan);
        return NDQ_NO_MEMORY;
    }
    memset(plan->value, 0, values * sizeof(*plan->value));
    memset(plan->step, 0, steps * sizeof(*plan->step));
    return NDQ_OK;
}

void ndq_plan_free(ndq_plan *plan)
{
    ndq_free(plan->value);
    ndq_free(plan->step);
    ndq_free(plan->arena);
    *plan = (ndq_plan){0};
}

static ndq_status run_steps(const ndq_plan *plan, size_t part, uint8_t *const *values, uint8_t *const *copies)
{
    for (size_t s = 0; s < plan->steps; s++) {
        const ndq_step *step = &plan->step[s];
        const ndq_status status = step->run(step, values);
        if (status != NDQ_OK)
            return status;
        const size_t bytes = plan->value[step->out].bytes;
        if (copies)
            memcpy(copies[s] + part * bytes, values[step->out], bytes);
    }
    return NDQ_OK;
}

ndq_status ndq_plan_run(ndq_plan *plan, uint8_t *const *arrays, uint8_t *const *copies)
{
    uint8_t *arena = __atomic_exchange_n(&plan->arena, NULL, __ATOMIC_ACQUIRE);
    if (!arena && !(arena = new_arena(plan)))
        return NDQ_NO_MEMORY;
    uint8_t **values = (uint8_t **)(void *)arena, *base = arena + table_bytes(plan), *none = NULL;
    ndq_status status = NDQ_OK;
    for (size_t part = 0; part < plan->parts && status == NDQ_OK; part++) {
        for (size_t i = 0; i < plan->values; i++) {
            const ndq_plan_value *value = &plan->value[i];
            values[i] = i < plan->arrays ? arrays[i] + part * value->bytes : base + value->offset;
        }
        status = run_steps(plan, part, values, copies);
    }
    if (!__atomic_compare_exchange_n(&plan->arena, &none, arena, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ndq_free(arena);
    return status;
}
