"The parts of the documentation's build, which tools/build_docs.py puts together."
