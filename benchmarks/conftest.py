"""Options of `pytest benchmarks/test_ops.py`."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="fewer shapes and rounds, no compiling")
    parser.addoption("--device", default="cpu", help="cpu or cuda; default %(default)s")
