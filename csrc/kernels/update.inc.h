/* What a training step does to gradients and parameters, for one type and backend. Plain C: the compiler vectorises it
 * for NDQ_TARGET, the square root too, as it need not set errno.
 *
 * Parameters: T; NDQ_SQRT, its square root; NDQ_SUFFIX; and those of elementwise_all.inc.h. Numbers come in float64 and
 * are rounded to T once; each operation is rounded to T by itself, in the order in which it is written. */

NDQ_TARGET static void NDQ_FN(relu_backward)(size_t begin, size_t end, const T *dy, const T *y, T *dx)
{
    NDQ_IVDEP for (size_t i = begin; i < end; i++)
    {
        const T d = dy[i]; /* loaded in any case, so that the choice is a select and not a branch */
        dx[i] = y[i] > 0 ? d : 0;
    }
}

NDQ_TARGET static void NDQ_FN(sgd_step)(const ndq_sgd *p, size_t begin, size_t end, const T *g, T *w)
{
    const T lr = (T)p->lr;
    NDQ_IVDEP for (size_t i = begin; i < end; i++)
    {
        w[i] -= lr * g[i];
    }
}

NDQ_TARGET static void NDQ_FN(sgd_momentum_step)(const ndq_sgd *p, size_t begin, size_t end, const T *g, T *v, T *w)
{
    const T lr = (T)p->lr, momentum = (T)p->momentum;
    NDQ_IVDEP for (size_t i = begin; i < end; i++)
    {
        const T velocity = momentum * v[i] + g[i];
        v[i] = velocity;
        w[i] -= lr * velocity;
    }
}

/* Kingma and Ba, "Adam" (2015), algorithm 1, with the bias corrections moved out of the loop. */
NDQ_TARGET static void NDQ_FN(adam_step)(const ndq_adam *p, size_t begin, size_t end, const T *g, T *m, T *v, T *w)
{
    const T beta1 = (T)p->beta1, rest1 = (T)(1 - p->beta1), beta2 = (T)p->beta2, rest2 = (T)(1 - p->beta2);
    const T rate = (T)p->rate, correction = (T)p->correction, eps = (T)p->eps;
    NDQ_IVDEP for (size_t i = begin; i < end; i++)
    {
        const T first = beta1 * m[i] + rest1 * g[i];
        const T second = beta2 * v[i] + rest2 * (g[i] * g[i]);
        m[i] = first;
        v[i] = second;
        w[i] -= rate * (first / (NDQ_SQRT(second) * correction + eps));
    }
}
