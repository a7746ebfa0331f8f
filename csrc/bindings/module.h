/* What each binding file gives to module.c: a method table, and a function that adds its types and constants. */
#ifndef NDQ_MODULE_H
#define NDQ_MODULE_H

#include "pyarray.h"

extern PyMethodDef ndq_elementwise_methods[], ndq_observe_methods[], ndq_gemm_methods[], ndq_range_methods[], ndq_training_methods[];
extern PyMethodDef ndq_update_methods[], ndq_plan_methods[], ndq_gemm_f32_methods[], ndq_conv_methods[];
extern PyMethodDef ndq_conv_f32_methods[], ndq_codes_methods[], ndq_channels_methods[], ndq_dynamic_methods[], ndq_bits_methods[];
extern PyMethodDef ndq_rows_methods[], ndq_matmul_methods[], ndq_conv_transpose_methods[];
extern PyMethodDef ndq_grouped_methods[];
extern PyMethodDef ndq_binary_methods[];
int ndq_params_exec(PyObject *module);
int ndq_gemm_exec(PyObject *module);
int ndq_grouped_exec(PyObject *module);
int ndq_conv_exec(PyObject *module);
int ndq_conv_transpose_exec(PyObject *module);
int ndq_range_exec(PyObject *module);
int ndq_plan_exec(PyObject *module);

#endif
