"""Triton kernels: the modules of kernels/, at the root of the repository.

A wheel has them here. In an editable install setuptools finds them where they are, but not the
package that they are in: this file is that package.
"""
