/* What each binding file gives to module.c: a method table, and a function that adds its types and constants. */
#ifndef NDQ_MODULE_H
#define NDQ_MODULE_H

#include "pyarray.h"

extern PyMethodDef ndq_elementwise_methods[];
int ndq_params_exec(PyObject *module);

#endif
