/* Float32 convolutions and their gradients. */
#include "geometry.h"
#include "module.h"

#include "../kernels/conv_f32.h"

/* More floats than this are no memory without asking; sizes below it cannot overflow. */
#define LARGEST 1e12

static ndq_images_f32 images(PyArrayObject *array)
{
    return (ndq_images_f32){PyArray_BYTES(array), PyArray_STRIDE(array, 0), PyArray_STRIDE(array, 1),
                            PyArray_STRIDE(array, 2), PyArray_STRIDE(array, 3)};
}

/* Sizes of a call with images (N, C, H, W) and weights (O, C / groups, KH, KW). */
static int make_call(PyObject *numbers, Py_ssize_t groups, const npy_intp *x, const npy_intp *w,
                     ndq_conv_f32_call *call)
{
    ndq_conv_geometry g;
    *call = (ndq_conv_f32_call){.kernel = ndq_kernels_in_use()->gemm_f32, .N = (size_t)x[0], .C = (size_t)x[1],
                                .O = (size_t)w[0], .groups = (size_t)groups};
    if (ndq_take_geometry(numbers, &g) < 0 || ndq_check_groups(groups, w[0], "outputs of w") < 0 ||
        ndq_check_groups(groups, x[1], "channels of x") < 0)
        return -1;
    if (x[1] / groups != w[1]) {
        PyErr_Format(PyExc_ValueError, "w: axis 1 must have %zd channels, of the %zd of x in %zd groups, got %zd",
                     (Py_ssize_t)(x[1] / groups), (Py_ssize_t)x[1], groups, (Py_ssize_t)w[1]);
        return -1;
    }
    if (ndq_make_axis(&g, 0, x[2], w[2], &call->y) < 0 || ndq_make_axis(&g, 1, x[3], w[3], &call->x) < 0)
        return -1;
    const double pixels = ((double)x[2] + 2 * (double)g.padding[0]) * ((double)x[3] + 2 * (double)g.padding[1]);
    const double weights = (double)w[2] * (double)w[3] * (double)(call->C + 32) * (double)(call->O + 32);
    if ((double)(call->C + call->O) * pixels > LARGEST || weights > LARGEST) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* At least 1, and so few that channels in groups can be counted. */
static int take_groups(PyObject *object, Py_ssize_t *groups)
{
    *groups = PyLong_AsSsize_t(object);
    if (*groups == -1 && PyErr_Occurred())
        return -1;
    if (*groups >= 1 && *groups <= INT32_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "groups: must be 1 to %d, got %zd", INT32_MAX, *groups);
    return -1;
}

static int compute(const ndq_conv_f32_call *call, ndq_status (*function)(const ndq_conv_f32_call *))
{
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = function(call);
    Py_END_ALLOW_THREADS
    return ndq_check_status(status);
}

static PyArrayObject *contiguous_floats(PyObject *object, const char *name, int ndim)
{
    PyArrayObject *given = ndq_float_array(object, name), *array = NULL;
    if (given && ndq_check_ndim(given, name, ndim) == 0)
        array = ndq_contiguous(given, NPY_FLOAT);
    ndq_release(given);
    return array;
}

/* conv2d_f32(x, w, bias, geometry, groups) */
static PyObject *py_conv2d_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *w = NULL, *bias = NULL, *y = NULL;
    PyObject *result = NULL;
    ndq_conv_f32_call call;
    Py_ssize_t groups;
    (void)module;
    if (ndq_check_count("conv2d_f32", count, 5) < 0 || take_groups(args[4], &groups) < 0 ||
        !(x = ndq_floats_in_place(args[0], "x", 4)) || !(w = contiguous_floats(args[1], "w", 4)) ||
        make_call(args[3], groups, PyArray_DIMS(x), PyArray_DIMS(w), &call) < 0)
        goto exit;
    const npy_intp outputs = PyArray_DIM(w, 0);
    if (args[2] != Py_None && (!(bias = contiguous_floats(args[2], "bias", 1)) ||
                               ndq_check_shape(bias, "bias", 1, &outputs) < 0))
        goto exit;
    const npy_intp shape[] = {PyArray_DIM(x, 0), (npy_intp)call.y.out, (npy_intp)call.x.out, outputs};
    if (!(y = ndq_output(Py_None, "y", 4, shape, NPY_FLOAT)))
        goto exit;
    call.in = images(x);
    call.w = PyArray_DATA(w);
    call.bias = bias ? PyArray_DATA(bias) : NULL;
    call.out = PyArray_DATA(y);
    if (compute(&call, ndq_conv_f32) == 0)
        result = (PyObject *)ndq_retain(y);
exit:
    ndq_release(x);
    ndq_release(w);
    ndq_release(bias);
    ndq_release(y);
    return result;
}

/* dy must be the gradient of the output of `call` for N images. */
static int check_dy(PyArrayObject *dy, const ndq_conv_f32_call *call)
{
    const npy_intp shape[] = {(npy_intp)call->N, (npy_intp)call->O, (npy_intp)call->y.out, (npy_intp)call->x.out};
    return ndq_check_shape(dy, "dy", 4, shape);
}

/* conv2d_f32_input_grad(dy, w, size, geometry, groups) */
static PyObject *py_conv2d_f32_input_grad(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *dy = NULL, *w = NULL, *dx = NULL;
    PyObject *result = NULL;
    Py_ssize_t groups, height, width;
    ndq_conv_f32_call call;
    (void)module;
    if (ndq_check_count("conv2d_f32_input_grad", count, 5) < 0 || take_groups(args[4], &groups) < 0 ||
        !(dy = ndq_floats_in_place(args[0], "dy", 4)) || !(w = contiguous_floats(args[1], "w", 4)) ||
        ndq_take_size(args[2], &height, &width) < 0)
        goto exit;
    const npy_intp shape[] = {PyArray_DIM(dy, 0), PyArray_DIM(w, 1) * groups, height, width};
    if (make_call(args[3], groups, shape, PyArray_DIMS(w), &call) < 0 || check_dy(dy, &call) < 0)
        goto exit;
    const npy_intp last[] = {shape[0], height, width, shape[1]};
    if (!(dx = ndq_output(Py_None, "dx", 4, last, NPY_FLOAT)))
        goto exit;
    call.in = images(dy);
    call.w = PyArray_DATA(w);
    call.out = PyArray_DATA(dx);
    if (compute(&call, ndq_conv_f32_input_grad) == 0)
        result = (PyObject *)ndq_retain(dx);
exit:
    ndq_release(dy);
    ndq_release(w);
    ndq_release(dx);
    return result;
}

/* conv2d_f32_weight_grad(dy, x, size, geometry, groups) */
static PyObject *py_conv2d_f32_weight_grad(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *dy = NULL, *x = NULL, *dw = NULL;
    PyObject *result = NULL;
    Py_ssize_t groups, height, width;
    ndq_conv_f32_call call;
    (void)module;
    if (ndq_check_count("conv2d_f32_weight_grad", count, 5) < 0 || take_groups(args[4], &groups) < 0 ||
        !(dy = ndq_floats_in_place(args[0], "dy", 4)) || !(x = ndq_floats_in_place(args[1], "x", 4)) ||
        ndq_take_size(args[2], &height, &width) < 0)
        goto exit;
    const npy_intp shape[] = {PyArray_DIM(dy, 1), PyArray_DIM(x, 1) / groups, height, width};
    if (make_call(args[3], groups, PyArray_DIMS(x), shape, &call) < 0 || check_dy(dy, &call) < 0 ||
        !(dw = ndq_output(Py_None, "dw", 4, shape, NPY_FLOAT)))
        goto exit;
    call.in = images(x);
    call.dy = images(dy);
    call.out = PyArray_DATA(dw);
    if (compute(&call, ndq_conv_f32_weight_grad) == 0)
        result = (PyObject *)ndq_retain(dw);
exit:
    ndq_release(dy);
    ndq_release(x);
    ndq_release(dw);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_conv_f32_methods[] = {
    METHOD(conv2d_f32, "(x, w, bias, geometry, groups, /)", "Convolution; the result is N, H, W, C."),
    METHOD(conv2d_f32_input_grad, "(dy, w, size, geometry, groups, /)",
           "Its gradient to x of (height, width) size, N, H, W, C."),
    METHOD(conv2d_f32_weight_grad, "(dy, x, size, geometry, groups, /)", "Its gradient to w of (rows, columns) size."),
    {NULL, NULL, 0, NULL},
};
