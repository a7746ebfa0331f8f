/* _core.Plan: a lowered model as steps over one arena. Whatever Python passes, no step reads or writes outside the value
 * that it names; that values which are alive at the same time do not overlap is the business of who lays them out. */
#include "args.h"
#include "module.h"

#include "../plan.h"

enum { MAX_ARRAYS = 32 };

typedef struct {
    PyObject_HEAD
    ndq_plan plan;
    PyObject *kept; /* list of the objects whose memory the steps point to */
} plan_object;

/* One step while it is made from ("kind", inputs, output, *constants). */
typedef struct {
    PyObject *module, *constants;
    plan_object *self;
    ndq_step *step;
    size_t number;
    const char *kind;
} maker;

static size_t bytes_of(const maker *m, size_t value)
{
    return m->self->plan.value[value].bytes;
}

static int check_bytes(const maker *m, size_t value, size_t bytes)
{
    if (bytes_of(m, value) == bytes)
        return 0;
    PyErr_Format(PyExc_ValueError, "step %zu (%s): value %zu has %zu bytes, expected %zu", m->number, m->kind, value,
                 bytes_of(m, value), bytes);
    return -1;
}

/* ---- A maker for each kind of step ---- */

/* The steps compute in float32 with one scale. */
static int check_params(const ndq_params_object *params)
{
    if (ndq_check_per_tensor(params, "qparams") < 0)
        return -1;
    if (ndq_is_f32(ndq_arithmetic_of(&params->params, true)))
        return 0;
    PyErr_SetString(PyExc_ValueError, "qparams: a plan has no step for the rounding of this profile");
    return -1;
}

/* quantize, dequantize: (qparams). One float32 stands beside each code. */
static int make_elementwise(maker *m, bool to_codes)
{
    PyObject *qparams;
    if (!PyArg_ParseTuple(m->constants, "O", &qparams))
        return -1;
    ndq_params_object *params = ndq_params_of(m->module, qparams);
    if (!params || PyList_Append(m->self->kept, (PyObject *)params) < 0) {
        Py_XDECREF((PyObject *)params);
        return -1;
    }
    Py_DECREF((PyObject *)params);
    const size_t codes = to_codes ? m->step->out : m->step->in[0], n = bytes_of(m, codes);
    m->step->work.elementwise = (ndq_elementwise){
        .params = &params->params,
        .arithmetic = ndq_arithmetic_of(&params->params, true),
        .geometry = {.channels = 1, .inner = n},
        .n = n,
        .codes = params->params.codes,
    };
    m->step->run = to_codes ? ndq_step_quantize : ndq_step_dequantize;
    return check_params(params) < 0 ? -1 : check_bytes(m, to_codes ? m->step->in[0] : m->step->out, n * sizeof(float));
}

static int make_quantize(maker *m)
{
    return make_elementwise(m, true);
}

static int make_dequantize(maker *m)
{
    return make_elementwise(m, false);
}

/* linear: (rows, x_qparams, packed, out_qparams, requantization, relu), as of linear_integer. */
static int make_linear(maker *m)
{
    ndq_linear_arguments arguments;
    ndq_gemm_call *call = &m->step->work.gemm;
    Py_ssize_t rows;
    int relu;
    if (!PyArg_ParseTuple(m->constants, "nOOOOp", &rows, &arguments.x_qparams, &arguments.packed,
                          &arguments.out_qparams, &arguments.requantization, &relu))
        return -1;
    arguments.relu = relu;
    if (rows < 0) {
        PyErr_Format(PyExc_ValueError, "step %zu (linear): rows must not be negative, got %zd", m->number, rows);
        return -1;
    }
    if (ndq_linear_constants(m->module, &arguments, call) < 0 ||
        PyList_Append(m->self->kept, arguments.packed) < 0)
        return -1;
    size_t in, out;
    if (__builtin_mul_overflow((size_t)rows, call->w->K, &in) ||
        __builtin_mul_overflow((size_t)rows, call->w->N * (call->output == NDQ_GEMM_CODES ? 1 : 4), &out)) {
        PyErr_NoMemory();
        return -1;
    }
    call->M = (size_t)rows;
    call->a_stride = (ptrdiff_t)call->w->K;
    m->step->run = ndq_step_linear;
    return check_bytes(m, m->step->in[0], in) < 0 ? -1 : check_bytes(m, m->step->out, out);
}

/* Strides of contiguous images of C channels, with the channels last or first; the size of the array, or SIZE_MAX if it
 * passes the range of size_t. */
typedef struct {
    size_t n, c, y, x;
} image_strides;

static size_t lay_out_images(size_t N, size_t C, size_t H, size_t W, size_t size, bool channels_last, image_strides *s)
{
    size_t pixels, values, image, bytes;
    *s = (image_strides){0, 0, 0, 0};
    if (__builtin_mul_overflow(H, W, &pixels) || __builtin_mul_overflow(pixels, C, &values) ||
        __builtin_mul_overflow(values, size, &image) || __builtin_mul_overflow(image, N, &bytes))
        return SIZE_MAX;
    *s = channels_last ? (image_strides){image, size, W * C * size, C * size}
                       : (image_strides){image, pixels * size, W * size, size};
    return bytes;
}

/* conv2d: (images, rows, columns, channels last in, channels last out, x_qparams, packed, out_qparams, sizes, requantization,
 * relu), as of conv2d_requantized. */
static int make_conv2d(maker *m)
{
    ndq_linear_arguments arguments;
    ndq_conv_call *call = &m->step->work.conv;
    PyObject *sizes;
    Py_ssize_t N, H, W;
    int last_in, last_out, relu;
    if (!PyArg_ParseTuple(m->constants, "nnnppOOOOOp", &N, &H, &W, &last_in, &last_out, &arguments.x_qparams,
                          &arguments.packed, &arguments.out_qparams, &sizes, &arguments.requantization, &relu))
        return -1;
    arguments.relu = relu;
    if (N < 0 || H < 0 || W < 0) {
        PyErr_Format(PyExc_ValueError, "step %zu (conv2d): sizes must not be negative, got %zd, %zd, %zd", m->number, N,
                     H, W);
        return -1;
    }
    if (ndq_conv_constants(m->module, &arguments, sizes, H, W, call) < 0 ||
        PyList_Append(m->self->kept, arguments.packed) < 0)
        return -1;
    const ndq_conv_weights *w = call->w;
    const size_t size = call->product.output == NDQ_GEMM_CODES ? 1 : sizeof(float);
    image_strides in, out;
    const size_t in_bytes = lay_out_images((size_t)N, w->C * w->groups, (size_t)H, (size_t)W, 1, last_in, &in);
    const size_t out_bytes = lay_out_images((size_t)N, w->O, call->y.out, call->x.out, size, last_out, &out);
    if (check_bytes(m, m->step->in[0], in_bytes) < 0 || check_bytes(m, m->step->out, out_bytes) < 0)
        return -1;
    call->N = (size_t)N;
    call->in_n = (ptrdiff_t)in.n;
    call->in_c = (ptrdiff_t)in.c;
    call->in_y = (ptrdiff_t)in.y;
    call->in_x = (ptrdiff_t)in.x;
    call->out_n = out.n;
    call->out_c = out.c;
    call->out_y = out.y;
    call->out_x = out.x;
    m->step->run = ndq_step_conv2d;
    return 0;
}

/* floor_codes: (lowest code). */
static int make_floor_codes(maker *m)
{
    int lowest, is_signed;
    if (!PyArg_ParseTuple(m->constants, "ip", &lowest, &is_signed))
        return -1;
    m->step->work.floor_codes = (ndq_floor_codes){bytes_of(m, m->step->out), is_signed, lowest};
    m->step->run = ndq_step_floor_codes;
    return check_bytes(m, m->step->in[0], bytes_of(m, m->step->out));
}

static const struct {
    const char *name;
    size_t inputs;
    int (*make)(maker *m);
} kinds[] = {
    {"quantize", 1, make_quantize},
    {"dequantize", 1, make_dequantize},
    {"linear", 1, make_linear},
    {"conv2d", 1, make_conv2d},
    {"floor_codes", 1, make_floor_codes},
};

/* ---- Construction ---- */

static int take_value(const maker *m, PyObject *object, size_t *value)
{
    const size_t number = PyLong_AsSize_t(object);
    if (number == (size_t)-1 && PyErr_Occurred())
        return -1;
    if (number >= m->self->plan.values) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): there is no value %zu", m->number, m->kind, number);
        return -1;
    }
    *value = number;
    return 0;
}

static int take_inputs(maker *m, PyObject *inputs, size_t count)
{
    if (!PyTuple_Check(inputs) || (size_t)PyTuple_Size(inputs) != count) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): expected a tuple of %zu inputs, got %R", m->number, m->kind,
                     count, inputs);
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        if (take_value(m, PyTuple_GetItem(inputs, (Py_ssize_t)i), &m->step->in[i]) < 0)
            return -1;
    return 0;
}

static int make_step(maker *m, PyObject *description)
{
    const Py_ssize_t length = PyTuple_Check(description) ? PyTuple_Size(description) : 0;
    PyObject *name = length >= 3 ? PyTuple_GetItem(description, 0) : NULL;
    if (!name || !PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "step %zu: expected (kind, inputs, output, ...), got %R", m->number, description);
        return -1;
    }
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        if (PyUnicode_CompareWithASCIIString(name, kinds[k].name))
            continue;
        m->kind = kinds[k].name;
        if (take_inputs(m, PyTuple_GetItem(description, 1), kinds[k].inputs) < 0 ||
            take_value(m, PyTuple_GetItem(description, 2), &m->step->out) < 0 ||
            !(m->constants = PyTuple_GetSlice(description, 3, length)))
            return -1;
        m->self->plan.value[m->step->out].written = true;
        const int made = kinds[k].make(m);
        Py_DECREF(m->constants);
        return made;
    }
    PyErr_Format(PyExc_ValueError, "step %zu: there is no kind %R", m->number, name);
    return -1;
}

static int take_pair(PyObject *object, Py_ssize_t *offset, Py_ssize_t *bytes)
{
    if (PyTuple_Check(object))
        return PyArg_ParseTuple(object, "nn", offset, bytes) ? 0 : -1;
    PyErr_Format(PyExc_TypeError, "arena: expected pairs of offset and size, got %R", object);
    return -1;
}

/* Values from `arrays`, their sizes in bytes, and from `arena`, pairs of offset and size. */
static int take_values(ndq_plan *plan, PyObject *arrays, PyObject *arena)
{
    for (size_t i = 0; i < plan->values; i++) {
        ndq_plan_value *value = &plan->value[i];
        Py_ssize_t offset = 0, bytes, end;
        if (i < plan->arrays)
            bytes = PyLong_AsSsize_t(PyTuple_GetItem(arrays, (Py_ssize_t)i));
        else if (take_pair(PyTuple_GetItem(arena, (Py_ssize_t)(i - plan->arrays)), &offset, &bytes) < 0)
            return -1;
        if (bytes == -1 && PyErr_Occurred())
            return -1;
        if (bytes < 0 || offset < 0 || offset % NDQ_ALIGN || __builtin_add_overflow(offset, bytes, &end) ||
            (i >= plan->arrays && (size_t)end > plan->arena_bytes)) {
            PyErr_Format(PyExc_ValueError, "value %zu: offset %zd with %zd bytes does not fit", i, offset, bytes);
            return -1;
        }
        *value = (ndq_plan_value){.offset = (size_t)offset, .bytes = (size_t)bytes};
    }
    return 0;
}

static int fill(PyObject *module, plan_object *self, PyObject *arrays, PyObject *arena, PyObject *steps)
{
    if (take_values(&self->plan, arrays, arena) < 0)
        return -1;
    for (size_t s = 0; s < self->plan.steps; s++) {
        maker m = {.module = module, .self = self, .step = &self->plan.step[s], .number = s};
        if (make_step(&m, PyTuple_GetItem(steps, (Py_ssize_t)s)) < 0)
            return -1;
    }
    return 0;
}

/* make_plan(arrays, arena, arena_bytes, steps) */
static PyObject *py_make_plan(PyObject *module, PyObject *args)
{
    PyObject *arrays, *arena, *steps;
    Py_ssize_t arena_bytes;
    if (!PyArg_ParseTuple(args, "O!O!nO!:make_plan", &PyTuple_Type, &arrays, &PyTuple_Type, &arena, &arena_bytes,
                          &PyTuple_Type, &steps))
        return NULL;
    if (PyTuple_Size(arrays) > MAX_ARRAYS || arena_bytes < 0) {
        PyErr_Format(PyExc_ValueError, "at most %d arrays and an arena of 0 bytes or more, got %zd and %zd",
                     (int)MAX_ARRAYS, PyTuple_Size(arrays), arena_bytes);
        return NULL;
    }
    plan_object *self = (plan_object *)PyType_GenericAlloc(ndq_state_of(module)->plan_type, 0);
    if (!self)
        return NULL;
    const size_t count = (size_t)PyTuple_Size(arrays);
    self->kept = PyList_New(0);
    if (!self->kept || ndq_check_status(ndq_plan_init(&self->plan, count, count + (size_t)PyTuple_Size(arena),
                                                      (size_t)PyTuple_Size(steps), (size_t)arena_bytes)) < 0 ||
        fill(module, self, arrays, arena, steps) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void plan_dealloc(PyObject *object)
{
    plan_object *self = (plan_object *)object;
    ndq_plan_free(&self->plan);
    Py_XDECREF(self->kept);
    ndq_free_object(object);
}

/* ---- Runs ---- */

/* The memory of an array of exactly that many bytes. */
static uint8_t *memory_of(PyObject *object, const char *name, size_t number, size_t bytes, bool written)
{
    const int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | (written ? NPY_ARRAY_WRITEABLE : 0);
    if (!PyArray_Check(object) || !PyArray_CHKFLAGS((PyArrayObject *)object, flags)) {
        PyErr_Format(PyExc_TypeError, "%s %zu: expected a C-contiguous, aligned%s array, got %R", name, number,
                     written ? ", writeable" : "", (PyObject *)Py_TYPE(object));
        return NULL;
    }
    if ((size_t)PyArray_NBYTES((PyArrayObject *)object) == bytes)
        return PyArray_DATA((PyArrayObject *)object);
    PyErr_Format(PyExc_ValueError, "%s %zu: expected %zu bytes, got %zd", name, number, bytes,
                 (Py_ssize_t)PyArray_NBYTES((PyArrayObject *)object));
    return NULL;
}

static int run(plan_object *self, uint8_t *const *arrays, uint8_t *const *copies)
{
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_plan_run(&self->plan, arrays, copies);
    Py_END_ALLOW_THREADS
    return ndq_check_status(status);
}

static int take_arrays(const ndq_plan *plan, PyObject *const *args, Py_ssize_t count, uint8_t **arrays)
{
    if (ndq_check_count("run", count, (Py_ssize_t)plan->arrays) < 0)
        return -1;
    for (size_t i = 0; i < plan->arrays; i++)
        if (!(arrays[i] = memory_of(args[i], "array", i, plan->value[i].bytes, plan->value[i].written)))
            return -1;
    return 0;
}

static PyObject *plan_run(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    plan_object *self = (plan_object *)object;
    uint8_t *arrays[MAX_ARRAYS];
    if (take_arrays(&self->plan, args, count, arrays) < 0 || run(self, arrays, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *plan_trace(PyObject *object, PyObject *args)
{
    plan_object *self = (plan_object *)object;
    const ndq_plan *plan = &self->plan;
    PyObject *given, *wanted, *items[MAX_ARRAYS], *result = NULL;
    uint8_t *arrays[MAX_ARRAYS];
    if (!PyArg_ParseTuple(args, "O!O!:trace", &PyTuple_Type, &given, &PyTuple_Type, &wanted) ||
        ndq_check_count("trace: copies", PyTuple_Size(wanted), (Py_ssize_t)plan->steps) < 0)
        return NULL;
    const Py_ssize_t count = PyTuple_Size(given);
    for (Py_ssize_t i = 0; i < count && i < MAX_ARRAYS; i++)
        items[i] = PyTuple_GetItem(given, i);
    if (take_arrays(plan, items, count, arrays) < 0)
        return NULL;
    uint8_t **copies = ndq_alloc(plan->steps * sizeof(*copies));
    if (!copies)
        return PyErr_NoMemory();
    for (size_t s = 0; s < plan->steps; s++) {
        const size_t bytes = plan->value[plan->step[s].out].bytes;
        if (!(copies[s] = memory_of(PyTuple_GetItem(wanted, (Py_ssize_t)s), "copy", s, bytes, true)))
            goto exit;
    }
    if (run(self, arrays, copies) == 0)
        result = Py_NewRef(Py_None);
exit:
    ndq_free(copies);
    return result;
}

static PyObject *plan_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((plan_object *)self)->plan.arena_bytes);
}

static PyMethodDef plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))plan_run, METH_FASTCALL,
     "run($self, *arrays)\n--\n\nRun all steps on the arrays of one call, inputs and outputs."},
    {"trace", plan_trace, METH_VARARGS,
     "trace($self, arrays, copies, /)\n--\n\nThe same, with a copy of what each step gives, taken as soon as it has run."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef plan_getset[] = {
    {"nbytes", plan_nbytes, NULL, "Size of the arena.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, "A lowered model for one shape of input; made by make_plan."},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {Py_tp_getset, plan_getset},
    {0, NULL},
};

static PyType_Spec plan_spec = {
    .name = "ndquant._core.Plan",
    .basicsize = sizeof(plan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = plan_slots,
};

int ndq_plan_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &plan_spec, NULL);
    ndq_state_of(module)->plan_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "Plan", type) : -1;
}

PyMethodDef ndq_plan_methods[] = {
    {"make_plan", py_make_plan, METH_VARARGS,
     "make_plan(arrays, arena, arena_bytes, steps, /)\n--\n\n"
     "A Plan of values, first those that each call brings, by size, then those of the arena, by offset and size; and of "
     "steps (kind, inputs, output, constants...)."},
    {NULL, NULL, 0, NULL},
};
