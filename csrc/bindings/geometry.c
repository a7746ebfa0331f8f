#include "geometry.h"

static int check_numbers(const Py_ssize_t *numbers, const char *name, Py_ssize_t least)
{
    for (int i = 0; i < 2; i++) {
        const bool too_small = numbers[i] < least;
        if (!too_small && numbers[i] <= INT32_MAX)
            continue;
        PyErr_Format(PyExc_ValueError, "%s: must be at %s %zd, got %zd", name, too_small ? "least" : "most",
                     too_small ? least : (Py_ssize_t)INT32_MAX, numbers[i]);
        return -1;
    }
    return 0;
}

int ndq_take_size(PyObject *object, Py_ssize_t *rows, Py_ssize_t *columns)
{
    if (PyTuple_Check(object))
        return PyArg_ParseTuple(object, "nn", rows, columns) ? 0 : -1;
    PyErr_Format(PyExc_TypeError, "size: expected two integers in a tuple, got %R", object);
    return -1;
}

int ndq_take_geometry(PyObject *object, ndq_conv_geometry *g)
{
    *g = (ndq_conv_geometry){{0}, {0}, {0}, {0}};
    if (!PyArg_ParseTuple(object, "(nn)(nn)(nn)|(nn)", &g->stride[0], &g->stride[1], &g->padding[0], &g->padding[1],
                          &g->dilation[0], &g->dilation[1], &g->output_padding[0], &g->output_padding[1]))
        return -1;
    return check_numbers(g->stride, "stride", 1) < 0 || check_numbers(g->padding, "padding", 0) < 0 ||
                   check_numbers(g->dilation, "dilation", 1) < 0 ||
                   check_numbers(g->output_padding, "output_padding", 0) < 0
               ? -1
               : 0;
}

/* in and taps are sizes of arrays, of which broadcasting can make any: too large for all that follows from them. */
static int check_size(const char *name, Py_ssize_t size)
{
    if (size <= INT32_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: an axis of %zd is too long for a convolution", name, size);
    return -1;
}

int ndq_make_axis(const ndq_conv_geometry *g, int i, Py_ssize_t in, Py_ssize_t taps, ndq_conv_axis *axis)
{
    if (check_size("x", in) < 0 || check_size("w", taps) < 0)
        return -1;
    const Py_ssize_t reach = (taps - 1) * g->dilation[i] + 1, padded = in + 2 * g->padding[i];
    if (taps < 1 || reach > padded) {
        PyErr_Format(PyExc_ValueError,
                     "w: a window of %zd %s (%zd with dilation %zd) must have one or more and fit into the %zd of x "
                     "(%zd with padding %zd)",
                     taps, i ? "columns" : "rows", reach, g->dilation[i], in, padded, g->padding[i]);
        return -1;
    }
    *axis = (ndq_conv_axis){
        .in = (size_t)in,
        .out = (size_t)((padded - reach) / g->stride[i] + 1),
        .taps = (size_t)taps,
        .stride = (size_t)g->stride[i],
        .dilation = (size_t)g->dilation[i],
        .pad = g->padding[i],
    };
    return 0;
}

int ndq_make_transposed_axis(const ndq_conv_geometry *g, int i, Py_ssize_t in, Py_ssize_t taps, ndq_conv_axis *axis)
{
    if (check_size("x", in) < 0 || check_size("w", taps) < 0)
        return -1;
    const Py_ssize_t more = g->output_padding[i];
    if (more && more >= g->stride[i] && more >= g->dilation[i]) {
        PyErr_Format(PyExc_ValueError, "output_padding: must be less than stride %zd or dilation %zd, got %zd",
                     g->stride[i], g->dilation[i], more);
        return -1;
    }
    const Py_ssize_t out = (in - 1) * g->stride[i] - 2 * g->padding[i] + g->dilation[i] * (taps - 1) + more + 1;
    if (taps < 1 || in < 1 || out < 1) {
        PyErr_Format(PyExc_ValueError, "x: %zd %s and a window of %zd give an output of %zd", in,
                     i ? "columns" : "rows", taps, out);
        return -1;
    }
    *axis = (ndq_conv_axis){
        .in = (size_t)in,
        .out = (size_t)out,
        .taps = (size_t)taps,
        .stride = (size_t)g->stride[i],
        .dilation = (size_t)g->dilation[i],
        .pad = g->padding[i],
    };
    return 0;
}

int ndq_check_groups(Py_ssize_t groups, Py_ssize_t divided, const char *what)
{
    if (groups >= 1 && divided % groups == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "groups: must divide the %zd %s, got %zd", divided, what, groups);
    return -1;
}
