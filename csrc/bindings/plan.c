/* _core.Plan: a lowered model as steps over one arena. Whatever Python passes, no step reads or writes outside the value
 * that it names; that values which are alive at the same time do not overlap is the business of who lays them out. */
#include "module.h"
#include "steps.h"

enum { MAX_ARRAYS = 32 };

typedef struct {
    PyObject_HEAD
    ndq_plan plan;
    PyObject *kept; /* list of the objects whose memory the steps point to */
} plan_object;

/* ---- Construction ---- */

static int take_value(const ndq_step_maker *m, size_t values, PyObject *object, size_t *value)
{
    const size_t number = PyLong_AsSize_t(object);
    if (number == (size_t)-1 && PyErr_Occurred())
        return -1;
    if (number >= values) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): there is no value %zu", m->number, m->kind, number);
        return -1;
    }
    *value = number;
    return 0;
}

static int take_inputs(const ndq_step_maker *m, size_t values, PyObject *inputs, size_t count)
{
    if (!PyTuple_Check(inputs) || (size_t)PyTuple_Size(inputs) != count) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): expected a tuple of %zu inputs, got %R", m->number, m->kind,
                     count, inputs);
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        if (take_value(m, values, PyTuple_GetItem(inputs, (Py_ssize_t)i), &m->step->in[i]) < 0)
            return -1;
    return 0;
}

static int make_step(PyObject *module, plan_object *self, size_t number, PyObject *description)
{
    ndq_plan *plan = &self->plan;
    const Py_ssize_t length = PyTuple_Check(description) ? PyTuple_Size(description) : 0;
    PyObject *name = length >= 3 ? PyTuple_GetItem(description, 0) : NULL;
    if (!name || !PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "step %zu: expected (kind, inputs, output, ...), got %R", number, description);
        return -1;
    }
    const ndq_step_kind *kind = ndq_find_step_kind(name);
    if (!kind) {
        PyErr_Format(PyExc_ValueError, "step %zu: there is no kind %R", number, name);
        return -1;
    }
    ndq_step_maker m = {.module = module, .kept = self->kept, .value = plan->value, .step = &plan->step[number],
                        .number = number, .kind = kind->name};
    if (take_inputs(&m, plan->values, PyTuple_GetItem(description, 1), kind->inputs) < 0 ||
        take_value(&m, plan->values, PyTuple_GetItem(description, 2), &m.step->out) < 0 ||
        !(m.constants = PyTuple_GetSlice(description, 3, length)))
        return -1;
    plan->value[m.step->out].written = true;
    const int made = kind->make(&m);
    Py_DECREF(m.constants);
    return made;
}

static int take_pair(PyObject *object, Py_ssize_t *offset, Py_ssize_t *bytes)
{
    if (PyTuple_Check(object))
        return PyArg_ParseTuple(object, "nn", offset, bytes) ? 0 : -1;
    PyErr_Format(PyExc_TypeError, "arena: expected pairs of offset and size, got %R", object);
    return -1;
}

/* Values from `arrays`, their sizes in bytes, and from `arena`, pairs of offset and size; all of one part. */
static int take_values(ndq_plan *plan, PyObject *arrays, PyObject *arena)
{
    for (size_t i = 0; i < plan->values; i++) {
        ndq_plan_value *value = &plan->value[i];
        Py_ssize_t offset = 0, bytes, end, whole;
        if (i < plan->arrays)
            bytes = PyLong_AsSsize_t(PyTuple_GetItem(arrays, (Py_ssize_t)i));
        else if (take_pair(PyTuple_GetItem(arena, (Py_ssize_t)(i - plan->arrays)), &offset, &bytes) < 0)
            return -1;
        if (bytes == -1 && PyErr_Occurred())
            return -1;
        if (bytes < 0 || offset < 0 || offset % NDQ_ALIGN || __builtin_add_overflow(offset, bytes, &end) ||
            __builtin_mul_overflow(bytes, plan->parts, &whole) || (i >= plan->arrays && (size_t)end > plan->arena_bytes)) {
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
    for (size_t s = 0; s < self->plan.steps; s++)
        if (make_step(module, self, s, PyTuple_GetItem(steps, (Py_ssize_t)s)) < 0)
            return -1;
    return 0;
}

/* make_plan(arrays, arena, arena_bytes, steps, parts=1) */
static PyObject *py_make_plan(PyObject *module, PyObject *args)
{
    PyObject *arrays, *arena, *steps;
    Py_ssize_t arena_bytes, parts = 1;
    if (!PyArg_ParseTuple(args, "O!O!nO!|n:make_plan", &PyTuple_Type, &arrays, &PyTuple_Type, &arena, &arena_bytes,
                          &PyTuple_Type, &steps, &parts))
        return NULL;
    if (PyTuple_Size(arrays) > MAX_ARRAYS || arena_bytes < 0 || parts < 1) {
        PyErr_Format(PyExc_ValueError,
                     "at most %d arrays, an arena of 0 bytes or more and 1 part or more, got %zd, %zd and %zd",
                     (int)MAX_ARRAYS, PyTuple_Size(arrays), arena_bytes, parts);
        return NULL;
    }
    plan_object *self = (plan_object *)PyType_GenericAlloc(ndq_state_of(module)->plan_type, 0);
    if (!self)
        return NULL;
    const size_t count = (size_t)PyTuple_Size(arrays);
    self->kept = PyList_New(0);
    if (!self->kept || ndq_check_status(ndq_plan_init(&self->plan, count, count + (size_t)PyTuple_Size(arena),
                                                      (size_t)PyTuple_Size(steps), (size_t)parts,
                                                      (size_t)arena_bytes)) < 0 ||
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
        if (!(arrays[i] = memory_of(args[i], "array", i, plan->value[i].bytes * plan->parts, plan->value[i].written)))
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
        const size_t bytes = plan->value[plan->step[s].out].bytes * plan->parts;
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
     "make_plan(arrays, arena, arena_bytes, steps, parts=1, /)\n--\n\n"
     "A Plan of values, first those that each call brings, by size, then those of the arena, by offset and size; and of "
     "steps (kind, inputs, output, constants...). All are for one part: a call brings so many times as much, and the "
     "steps run on part after part."},
    {NULL, NULL, 0, NULL},
};
