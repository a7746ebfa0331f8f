/* Between layers that quantize their input as it comes, values are floats. */
#include "../plan.h"

ndq_status ndq_step_quantize_rows(const ndq_step *step, uint8_t *const *values)
{
    const ndq_quantized_rows *rows = &step->work.quantized_rows;
    size_t bad_row;
    return ndq_quantize_rows(ndq_kernels_in_use(), rows->M, rows->K, (const float *)(const void *)values[step->in[0]],
                             values[step->out], &bad_row);
}

ndq_status ndq_step_linear_rows(const ndq_step *step, uint8_t *const *values)
{
    ndq_rows_call call = step->work.rows;
    call.kernels = ndq_kernels_in_use();
    call.y = (float *)(void *)values[step->out];
    return ndq_multiply_rows(&call, values[step->in[0]]);
}

ndq_status ndq_step_linear_groups(const ndq_step *step, uint8_t *const *values)
{
    ndq_grouped_rows call = step->work.grouped_rows;
    call.y = (float *)(void *)values[step->out];
    return ndq_multiply_groups(&call, values[step->in[0]]);
}

ndq_status ndq_step_add_f32(const ndq_step *step, uint8_t *const *values)
{
    const float *a = (const float *)(const void *)values[step->in[0]], *b = (const float *)(const void *)values[step->in[1]];
    float *y = (float *)(void *)values[step->out];
    for (size_t i = 0; i < step->work.elements; i++)
        y[i] = a[i] + b[i];
    return NDQ_OK;
}

ndq_status ndq_step_softmax_f32(const ndq_step *step, uint8_t *const *values)
{
    ndq_softmax_rows call = step->work.softmax_rows;
    call.kernels = ndq_kernels_in_use();
    call.x = (const float *)(const void *)values[step->in[0]];
    call.y = (float *)(void *)values[step->out];
    ndq_softmax_f32(&call);
    return NDQ_OK;
}

ndq_status ndq_step_layer_norm_f32(const ndq_step *step, uint8_t *const *values)
{
    ndq_normalized_rows call = step->work.normalized_rows;
    call.kernels = ndq_kernels_in_use();
    call.x = (const float *)(const void *)values[step->in[0]];
    call.y = (float *)(void *)values[step->out];
    ndq_layer_norm_f32(&call);
    return NDQ_OK;
}

ndq_status ndq_step_gelu_f32(const ndq_step *step, uint8_t *const *values)
{
    ndq_gelu call = step->work.gelu;
    call.kernels = ndq_kernels_in_use();
    call.x = (const float *)(const void *)values[step->in[0]];
    call.y = (float *)(void *)values[step->out];
    ndq_gelu_f32(&call);
    return NDQ_OK;
}

ndq_status ndq_step_attention_f32(const ndq_step *step, uint8_t *const *values)
{
    ndq_attention call = step->work.attention;
    call.kernels = ndq_kernels_in_use();
    call.q.data = (const char *)values[step->in[0]];
    call.k.data = (const char *)values[step->in[1]];
    call.v.data = (const char *)values[step->in[2]];
    call.y = (float *)(void *)values[step->out];
    return ndq_attention_f32(&call);
}
