/* Called from Python without the price of ctypes: a few functions of CPython's stable interface are handed over once,
 * and fm_python_call is the body of a builtin whose self is a capsule around an fm_bound. Python runs on meanwhile. */
static fm_python python_;

FM_API void FM(python_use)(const fm_python *functions) {
    if (functions && functions->size >= sizeof python_) python_ = *functions;
}

FM_API void *FM(python_call)(void *self, void *nothing) {
    const fm_bound *bound = python_.pointer(self, 0);
    (void)nothing;
    void *state = python_.save();
    int code = FM(call)(bound);
    python_.restore(state);
    if (!code) {
        python_.keep(python_.none);
        return python_.none;
    }
    void *number = python_.number(code);
    python_.raise(python_.error, number);
    if (number) python_.release(number);
    return 0;
}
