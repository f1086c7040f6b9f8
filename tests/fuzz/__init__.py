"""Fuzzing both sides' bytes of the data plane: what is played, where it is played, and the laws that hold for it.

`strict` reads HTTP/1.1 as RFC 9112 has it and takes nothing else; `scenes` makes what each side sends; `stage` plays it
between two raw ends (`end`); `laws` judges what each of them has seen.
"""
