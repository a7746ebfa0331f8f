"""Forms in which one library does the same work: those that work, without those that cannot be its fastest.

A form is called "library: form", or by the library alone where that has one only.
"""

from __future__ import annotations

from .timing import seconds_per_call

#: Forms that take so many times as long as the fastest of their library in a trial are not timed.
HOPELESS = 3

_failed = set()


def library(name):
    """Return the library of a form."""
    return name.partition(": ")[0]


def fastest(times):
    """Return {library: its fastest form}, of {form: time}."""
    found = {}
    for name in times:
        found[library(name)] = min(found.get(library(name), name), name, key=times.get)
    return found


def several(names):
    """Return the part of {library: form} where the library has more than one form."""
    return {library: form for library, form in names.items() if form != library}


def candidates(builders):
    """Return {form: call}, of {form: function that returns the call}; forms that fail are named, each once."""
    calls = {}
    for name, build in builders.items():
        try:
            call = build()
            call()
        except Exception as error:  # each library raises what it likes where it lacks a kernel
            if name not in _failed:
                print(f"left out: {name} ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:80]})")
            _failed.add(name)
        else:
            calls[name] = call
    seconds = {name: min(seconds_per_call(call, 1) for _ in range(3)) for name, call in calls.items()}
    best = fastest(seconds)
    return {name: call for name, call in calls.items() if seconds[name] < HOPELESS * seconds[best[library(name)]]}
