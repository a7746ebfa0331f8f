/* The module ndquant._core: its method tables, its state, and the choice of backend and threads. */
#define NDQ_IMPORT_ARRAY
#include "module.h"

#include "args.h"
#include "../cpu.h"
#include "../threads.h"

static PyObject *py_available_backends(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < ndq_backend_count(); i++) {
        if (!ndq_backend_at(i)->available())
            continue;
        PyObject *name = PyUnicode_FromString(ndq_backend_at(i)->name);
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *py_all_backends(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New((Py_ssize_t)ndq_backend_count());
    for (size_t i = 0; list && i < ndq_backend_count(); i++) {
        PyObject *name = PyUnicode_FromString(ndq_backend_at(i)->name);
        if (!name || PyList_SetItem(list, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *py_cpu_features(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const ndq_cpu *cpu = ndq_cpu_features();
    PyObject *features = PyDict_New();
#define ADD(feature)                                                                        \
    if (features && PyDict_SetItemString(features, #feature, cpu->feature ? Py_True : Py_False) < 0) \
        Py_CLEAR(features);
    NDQ_CPU_FEATURES(ADD)
#undef ADD
    return features;
}

static PyObject *py_get_backend(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(ndq_backend_in_use());
}

static PyObject *py_set_backend(PyObject *module, PyObject *name)
{
    PyObject *bytes = PyUnicode_Check(name) ? PyUnicode_AsUTF8String(name) : NULL;
    if (!bytes) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "name: expected str, got %R", (PyObject *)Py_TYPE(name));
        return NULL;
    }
    const bool found = ndq_use_backend(PyBytes_AsString(bytes));
    Py_DECREF(bytes);
    if (found)
        Py_RETURN_NONE;
    PyObject *known = py_available_backends(module, NULL);
    if (known)
        PyErr_Format(PyExc_ValueError, "name: no backend %R on this machine, it has %R", name, known);
    Py_XDECREF(known);
    return NULL;
}

static PyObject *py_get_num_threads(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromSize_t(ndq_get_num_threads());
}

static PyObject *py_set_num_threads(PyObject *module, PyObject *count)
{
    (void)module;
    if (!PyLong_Check(count) || PyBool_Check(count)) {
        PyErr_Format(PyExc_TypeError, "n: expected int, got %R", (PyObject *)Py_TYPE(count));
        return NULL;
    }
    const long n = PyLong_AsLong(count);
    if (n == -1 && PyErr_Occurred())
        PyErr_Clear();
    if (n < 1 || n > NDQ_MAX_THREADS) {
        PyErr_Format(PyExc_ValueError, "n: must be 1 to %d, got %S", (int)NDQ_MAX_THREADS, count);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    ndq_set_num_threads((size_t)n);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_get_stream_from(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromSize_t(ndq_get_stream_from());
}

static PyObject *py_set_stream_from(PyObject *module, PyObject *bytes)
{
    (void)module;
    if (!PyLong_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "bytes: expected int, got %R", (PyObject *)Py_TYPE(bytes));
        return NULL;
    }
    const size_t n = PyLong_AsSize_t(bytes);
    if (PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "bytes: must be a size, got %S", bytes);
        return NULL;
    }
    ndq_set_stream_from(n);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"available_backends", py_available_backends, METH_NOARGS,
     "available_backends()\n--\n\nNames of the backends that this machine can run, best first."},
    {"all_backends", py_all_backends, METH_NOARGS,
     "all_backends()\n--\n\nNames of the backends of this build, best first."},
    {"cpu_features", py_cpu_features, METH_NOARGS,
     "cpu_features()\n--\n\nWhether this process may use each of the instruction sets that the core asks for."},
    {"get_backend", py_get_backend, METH_NOARGS, "get_backend()\n--\n\nName of the backend in use."},
    {"set_backend", py_set_backend, METH_O, "set_backend(name, /)\n--\n\nUse that backend from now on."},
    {"get_num_threads", py_get_num_threads, METH_NOARGS,
     "get_num_threads()\n--\n\nThreads that one call may use, the caller among them."},
    {"set_num_threads", py_set_num_threads, METH_O,
     "set_num_threads(n, /)\n--\n\nLet one call use up to n threads, the caller among them."},
    {"get_stream_from", py_get_stream_from, METH_NOARGS,
     "get_stream_from()\n--\n\nElementwise calls that move more bytes than this write past the caches."},
    {"set_stream_from", py_set_stream_from, METH_O,
     "set_stream_from(bytes, /)\n--\n\nSet that number; 0 is the size of the largest cache."},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    if (PyArray_ImportNumPyAPI() < 0)
        return -1;
    ndq_dispatch_init();
    if (PyModule_AddFunctions(module, ndq_elementwise_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_update_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_observe_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_range_methods) < 0 || PyModule_AddFunctions(module, ndq_training_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_gemm_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_gemm_f32_methods) < 0 || PyModule_AddFunctions(module, ndq_plan_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_conv_methods) < 0 || ndq_conv_exec(module) < 0 ||
        PyModule_AddFunctions(module, ndq_conv_transpose_methods) < 0 || ndq_conv_transpose_exec(module) < 0 ||
        PyModule_AddFunctions(module, ndq_conv_f32_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_codes_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_channels_methods) < 0 || PyModule_AddFunctions(module, ndq_dynamic_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_bits_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_rows_methods) < 0 || PyModule_AddFunctions(module, ndq_matmul_methods) < 0 ||
        PyModule_AddFunctions(module, ndq_grouped_methods) < 0 || ndq_grouped_exec(module) < 0 ||
        PyModule_AddFunctions(module, ndq_binary_methods) < 0 ||
        ndq_gemm_exec(module) < 0 || ndq_range_exec(module) < 0 || ndq_plan_exec(module) < 0)
        return -1;
    return ndq_params_exec(module);
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
    ndq_state *state = ndq_state_of(module);
    Py_VISIT(state->params_type);
    Py_VISIT(state->packed_type);
    Py_VISIT(state->packed_conv_type);
    Py_VISIT(state->packed_transposed_type);
    Py_VISIT(state->groups_type);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->params_name);
    return 0;
}

static int clear_module(PyObject *module)
{
    ndq_state *state = ndq_state_of(module);
    Py_CLEAR(state->params_type);
    Py_CLEAR(state->packed_type);
    Py_CLEAR(state->packed_conv_type);
    Py_CLEAR(state->packed_transposed_type);
    Py_CLEAR(state->groups_type);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->params_name);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ndquant._core",
    .m_doc = "The C core of ndquant.",
    .m_size = sizeof(ndq_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = traverse_module,
    .m_clear = clear_module,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
