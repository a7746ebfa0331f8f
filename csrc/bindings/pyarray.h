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

#endif
