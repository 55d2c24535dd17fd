class VerifyReport:
    pass


def verify():
    pass
