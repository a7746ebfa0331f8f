/* relu_backward and the steps of the optimizers: arrays and numbers in, kernels called. */
#include "args.h"
#include "module.h"
#include "../kernels/update.h"

static void compute(const ndq_update *job, void (*function)(const ndq_update *))
{
    if (job->n < NDQ_GIL_FROM) {
        function(job);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    function(job);
    Py_END_ALLOW_THREADS
}

/* float32 if both fit it, else float64: narrowing y could turn a positive number into 0. */
static int common_type(PyArrayObject *a, PyArrayObject *b)
{
    const int x = PyArray_TYPE(a), y = PyArray_TYPE(b);
    return (x == NPY_FLOAT || x == NPY_HALF) && (y == NPY_FLOAT || y == NPY_HALF) ? NPY_FLOAT : NPY_DOUBLE;
}

static PyObject *py_relu_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *dy = NULL, *y = NULL, *dy_work = NULL, *y_work = NULL, *dx = NULL, *dx_work = NULL;
    PyObject *result = NULL;
    if (ndq_check_count("relu_backward", count, 3) < 0 || !(dy = ndq_float_array(args[0], "dy")) ||
        !(y = ndq_float_array(args[1], "y")) || ndq_check_same_shape(y, "y", dy, "dy") < 0 ||
        !(dx = ndq_output(args[2], "out", PyArray_NDIM(dy), PyArray_DIMS(dy), PyArray_TYPE(dy))) ||
        ndq_check_overlap(dx, "out", dy, "dy") < 0 || ndq_check_overlap(dx, "out", y, "y") < 0)
        goto exit;
    const int type = common_type(dy, y);
    if (!(dy_work = ndq_contiguous(dy, type)) || !(y_work = ndq_contiguous(y, type)))
        goto exit;
    dx_work = PyArray_TYPE(dx) == type ? ndq_retain(dx)
                                       : (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(dx), PyArray_DIMS(dx), type);
    if (!dx_work)
        goto exit;
    const ndq_update job = {.kernels = ndq_kernels_in_use(), .is_double = type == NPY_DOUBLE,
                            .n = (size_t)PyArray_SIZE(dy), .dy = PyArray_DATA(dy_work), .y = PyArray_DATA(y_work),
                            .dx = PyArray_DATA(dx_work)};
    compute(&job, ndq_relu_backward);
    if (dx_work != dx && PyArray_CopyInto(dx, dx_work) < 0)
        goto exit;
    ndq_retain(dx);
    result = args[2] != Py_None ? (PyObject *)dx : PyArray_Return(dx);
exit:
    ndq_release(dy);
    ndq_release(y);
    ndq_release(dy_work);
    ndq_release(y_work);
    ndq_release(dx);
    ndq_release(dx_work);
    return result;
}

/* The arrays of a step: the parameter, its gradient, and what the optimizer remembers of it. */
enum { MEMORIES = 2 };

typedef struct {
    PyArrayObject *w, *g, *g_work, *memory[MEMORIES];
} step_arrays;

static void clear(step_arrays *a)
{
    ndq_release(a->w);
    ndq_release(a->g);
    ndq_release(a->g_work);
    for (int i = 0; i < MEMORIES; i++)
        ndq_release(a->memory[i]);
}

/* Takes w, g and the named memories from args, and fills what all steps have in common; memory[i] is args[2 + i]. */
static int take_arrays(step_arrays *a, PyObject *const *args, int memories, const char *const *names, ndq_update *job)
{
    if (!(a->w = ndq_changed_array(args[0], "w", NULL)) || !(a->g = ndq_float_array(args[1], "g")) ||
        ndq_check_same_shape(a->g, "g", a->w, "w") < 0 || ndq_check_disjoint(a->g, "g", a->w, "w") < 0)
        return -1;
    for (int i = 0; i < memories; i++) {
        if (!(a->memory[i] = ndq_changed_array(args[2 + i], names[i], a->w)) ||
            ndq_check_disjoint(a->memory[i], names[i], a->w, "w") < 0 ||
            ndq_check_disjoint(a->memory[i], names[i], a->g, "g") < 0 ||
            (i > 0 && ndq_check_disjoint(a->memory[i], names[i], a->memory[i - 1], names[i - 1]) < 0))
            return -1;
    }
    if (!(a->g_work = ndq_contiguous(a->g, PyArray_TYPE(a->w))))
        return -1;
    job->kernels = ndq_kernels_in_use();
    job->is_double = PyArray_TYPE(a->w) == NPY_DOUBLE;
    job->n = (size_t)PyArray_SIZE(a->w);
    job->w = PyArray_DATA(a->w);
    job->g = PyArray_DATA(a->g_work);
    return 0;
}

static PyObject *py_sgd_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"velocity"};
    (void)module;
    step_arrays arrays = {0};
    ndq_update job = {0};
    PyObject *result = NULL;
    if (ndq_check_count("sgd_step", count, 5) < 0 || ndq_number(args[3], "lr", &job.sgd.lr) < 0 ||
        ndq_number(args[4], "momentum", &job.sgd.momentum) < 0 ||
        take_arrays(&arrays, args, args[2] != Py_None, names, &job) < 0)
        goto exit;
    if (arrays.memory[0])
        job.v = PyArray_DATA(arrays.memory[0]);
    compute(&job, ndq_sgd_step);
    Py_INCREF(Py_None);
    result = Py_None;
exit:
    clear(&arrays);
    return result;
}

static PyObject *py_adam_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"m", "v"};
    (void)module;
    step_arrays arrays = {0};
    ndq_update job = {0};
    PyObject *result = NULL;
    if (ndq_check_count("adam_step", count, 9) < 0 || ndq_number(args[4], "rate", &job.adam.rate) < 0 ||
        ndq_number(args[5], "beta1", &job.adam.beta1) < 0 || ndq_number(args[6], "beta2", &job.adam.beta2) < 0 ||
        ndq_number(args[7], "correction", &job.adam.correction) < 0 ||
        ndq_number(args[8], "eps", &job.adam.eps) < 0 || take_arrays(&arrays, args, 2, names, &job) < 0)
        goto exit;
    job.m = PyArray_DATA(arrays.memory[0]);
    job.v = PyArray_DATA(arrays.memory[1]);
    compute(&job, ndq_adam_step);
    Py_INCREF(Py_None);
    result = Py_None;
exit:
    clear(&arrays);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_update_methods[] = {
    METHOD(relu_backward, "(dy, y, out, /)", "dy where y is positive, else 0."),
    METHOD(sgd_step, "(w, g, velocity, lr, momentum, /)", "One step of SGD on w, in place."),
    METHOD(adam_step, "(w, g, m, v, rate, beta1, beta2, correction, eps, /)", "One step of Adam on w, in place."),
    {NULL, NULL, 0, NULL},
};
