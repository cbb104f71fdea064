"""Emitters, one family a module: facts (problem), numbers (schedule) and mechanics (emit) stay apart."""
