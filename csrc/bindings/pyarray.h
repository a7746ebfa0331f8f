/* Python and NumPy, included the one way that lets several files share NumPy's table of functions. */
#ifndef NDQ_PYARRAY_H
#define NDQ_PYARRAY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define PY_ARRAY_UNIQUE_SYMBOL ndq_array_api
#ifndef NDQ_IMPORT_ARRAY /* module.c alone defines it: it imports the table that the others use */
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

/* Reference counts of arrays: at the limited API of 3.11 Py_INCREF and its like take a PyObject only. */
static inline PyArrayObject *ndq_retain(PyArrayObject *array)
{
    Py_INCREF((PyObject *)array);
    return array;
}

static inline void ndq_release(PyArrayObject *array)
{
    Py_XDECREF((PyObject *)array);
}

/* The end of an object that PyType_GenericAlloc made: of a type on the heap, which its objects keep alive. */
static inline void ndq_free_object(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF((PyObject *)type);
}

#endif
