import pytest
import torch
from suite import native

import bigfast
from bigfast.ops import kernels, layer_norm, library, registry


def call(dtype=torch.float32):
    return layer_norm(torch.zeros(2, 8, dtype=dtype), torch.ones(8, dtype=dtype))


@native
def test_a_forced_choice_that_cannot_serve_is_an_error_with_reasons():
    with bigfast.backend("cpp"), pytest.raises(ValueError, match="float16") as error:
        call(torch.float16)
    assert "layer_norm on cpu" in str(error.value) and "reference: can serve" in str(error.value)
    with bigfast.backend("flash_attn"), pytest.raises(ValueError, match="has no implementation"):
        call()


def test_triton_serves_the_cpu_in_its_interpreter_alone_and_if_forced(monkeypatch):
    names = lambda: [candidate.name for candidate in registry.candidates("layer_norm", "cpu")]
    monkeypatch.setattr(registry, "TRITON_INTERPRETED", True)
    assert names() == ["cpp", "reference", "triton"]
    monkeypatch.setattr(registry, "TRITON_INTERPRETED", False)
    assert names() == ["cpp", "reference"]
    with bigfast.backend("triton"), pytest.raises(ValueError, match="has no implementation"):
        call()


def test_triton_says_what_it_cannot_serve(monkeypatch):
    why_not = registry.candidates("layer_norm", "cuda")[0].why_not
    x, weight = torch.zeros(2, 8193), torch.ones(8193)
    assert "up to 8192" in why_not(x, None, weight, None, x.dtype)
    x, weight = x.double()[:, :8], weight.double()[:8]
    assert "not torch.float64" in why_not(x, None, weight, None, x.dtype)
    monkeypatch.setattr(registry, "TRITON_MISSING", "triton is not installed")
    assert registry.triton(registry.always).why_not() == "triton is not installed"
    assert registry.why_no_kernel("layer_norm", "cuda") == "triton is not installed"


def test_cuda_says_what_it_cannot_serve(monkeypatch):
    why_not = lambda *args: registry.candidates("layer_norm", "cuda")[1].why_not(*args)
    x, weight = torch.zeros(2, 8193), torch.ones(8193)
    if library.cuda_missing() is not None:
        assert why_not(x, None, weight, None, x.dtype) == library.cuda_missing()
    monkeypatch.setattr(registry, "cuda_missing", lambda: None)
    assert "up to 8192" in why_not(x, None, weight, None, x.dtype)
    x, weight = x.bfloat16()[:, :8], weight[:8]
    assert why_not(x, x.half(), weight, None, x.dtype) is None
    assert "not torch.float64" in why_not(x.double(), None, weight, None, x.dtype)
    old = library.driver_too_old
    assert old(13000, 12080) == "built for CUDA 13.0, but the driver serves CUDA 12.8"
    assert old(13000, 0) == "built for CUDA 13.0, but the driver is not there"
    assert old(13000, 13000) is None and old(12080, 13010) is None


def test_cuda_comes_before_triton_on_old_gpus(monkeypatch):
    """And so do its kernels, unless they cannot serve a call or Triton is forced."""
    names = lambda: [candidate.name for candidate in registry.candidates("layer_norm", "cuda")]
    by_triton = lambda refused=False: kernels._by_triton("layer_norm", lambda args: refused, ())
    monkeypatch.setattr(kernels, "cuda_missing", lambda: None)
    assert names() == ["triton", "cpp", "reference"] and by_triton()
    monkeypatch.setattr(registry, "cuda_before_triton", lambda: True)
    assert names() == ["cpp", "triton", "reference"]
    assert not by_triton() and by_triton(refused=True)
    with bigfast.backend("triton"):
        assert by_triton()
    monkeypatch.setattr(registry, "cuda_before_triton", lambda: False)
    with bigfast.backend("cpp"):
        assert not by_triton()


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="'cuda' is not one of cpp"), bigfast.backend("cuda"):
        pass
    with pytest.raises(ValueError, match="op 'nonsense'"), bigfast.backend("cpp", op="nonsense"):
        pass


def test_blocks_nest_and_end():
    args = (torch.zeros(2, 8), None, torch.ones(8), None, torch.float32)
    chosen = lambda: registry.choose("layer_norm", "cpu", *args)
    before = chosen()
    with bigfast.backend("reference"):
        assert chosen() == "reference"
        if library.NATIVE_MISSING is None:
            with bigfast.backend("cpp", op="layer_norm"):
                assert chosen() == "cpp"
        assert chosen() == "reference"
    assert chosen() == before


def test_environment(monkeypatch):
    monkeypatch.setattr(registry, "_forced", {})
    monkeypatch.setenv("BIGFAST_BACKEND", "layer_norm=reference,cpp")
    registry.read_environment()
    assert registry._forced == {"layer_norm": "reference", None: "cpp"}
    monkeypatch.setenv("BIGFAST_BACKEND", "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        registry.read_environment()


@native
def test_instruction_sets():
    assert library.cpu_isas()[0] == "portable" and library.cpu_isa() in library.cpu_isas()
    with pytest.raises(ValueError, match="'sse9' is not available here, only portable"):
        library.set_cpu_isa("sse9")


def test_missing_library_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(registry, "NATIVE_MISSING", "no C++ compiler was found")
    monkeypatch.setattr(registry, "_notice_due", True)
    candidates = (registry.cpp(registry.always), registry.REFERENCE)
    monkeypatch.setitem(registry._candidates, "layer_norm", {"cpu": candidates})
    call()
    call()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "no C++ compiler was found" in err
    with bigfast.backend("cpp"), pytest.raises(ValueError, match="not built: no C"):
        call()
