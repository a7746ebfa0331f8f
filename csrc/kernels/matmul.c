#include "matmul.h"

static ndq_status multiply(const ndq_matmul *c, size_t i, const int32_t *zeros)
{
    const ndq_weights b = {.N = c->N, .K = c->K, .runs = 1, .codes = c->b + i * c->K * c->N, .stride_n = 1,
                           .stride_k = (ptrdiff_t)c->N, .is_signed = c->b_signed, .zero_point = zeros};
    ndq_packed *packed = ndq_gemm_pack(c->kernel, &b, false);
    if (!packed)
        return NDQ_NO_MEMORY;
    ndq_gemm_set_scales(packed, 0, c->N, &c->b_scale, 0);
    ndq_gemm_call product = c->product;
    product.w = packed;
    product.M = c->M;
    product.a = c->a + i * c->M * c->K;
    product.a_stride = (ptrdiff_t)c->K;
    product.out = c->out + i * c->M * c->N * ndq_gemm_output_bytes(product.output);
    const ndq_status status = ndq_gemm(&product);
    ndq_gemm_free(packed);
    return status;
}

ndq_status ndq_matmul_codes(const ndq_matmul *call)
{
    assert(call->K <= NDQ_MATMUL_LONGEST);
    int32_t *zeros = call->N > SIZE_MAX / sizeof(*zeros) ? NULL : ndq_alloc(call->N * sizeof(*zeros));
    ndq_status status = zeros ? NDQ_OK : NDQ_NO_MEMORY;
    for (size_t n = 0; zeros && n < call->N; n++)
        zeros[n] = call->b_zero;
    for (size_t i = 0; status == NDQ_OK && i < call->matrices; i++)
        status = multiply(call, i, zeros);
    ndq_free(zeros);
    return status;
}
