"""Interfaces of other libraries, over BigFast's ops."""
