import soundfile as sf
from PIL import Image

from tests.conftest import REPOSITORY

LOG_MEL = REPOSITORY / "params" / "log_mel.toml"


def test_a_file_is_drawn(basilar, as_json, tmp_path, noise):
    sf.write(tmp_path / "noise.wav", noise(22050), 22050)
    what = ("plot", tmp_path / "noise.wav", "--recipe", LOG_MEL)
    code, out, err = basilar(*what, "-o", tmp_path / "noise.png")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'noise.png'}: spectrogram, ")
    with Image.open(tmp_path / "noise.png") as image:
        assert image.size == (640, 320)
    svg = tmp_path / "noise.svg"
    code, found = as_json(*what, "-o", svg, "--picture", "mean_spectrum", "--scale", "log")
    assert code == 0
    assert found == {"picture": "mean_spectrum", "output": str(svg), "bytes": svg.stat().st_size}
    assert ">frequency (Hz)</text>" in svg.read_text("utf-8")


def test_a_stored_clip_is_drawn_without_its_audio(basilar, built, root, tmp_path):
    output = tmp_path / "clip.png"
    what = ("plot", built.plan.key[:8], "b/01.wav", "--root", root, "-o", output)
    lost = ("--audio-root", tmp_path)  # where there is none
    assert basilar(*what, *lost)[0] == 0
    stored = output.read_bytes()
    code, _, err = basilar(*what, *lost, "--picture", "waveform")
    assert code == 1
    assert "the audio of 1 clips is not there" in err
    assert output.read_bytes() == stored
    assert basilar(*what, "--picture", "waveform")[0] == 0
    assert output.read_bytes() != stored


def test_a_recipe_alone_is_enough_for_some(basilar, built, tmp_path):
    output = tmp_path / "new" / "filters.svg"  # folders are made, as by scan and bundle
    assert basilar("plot", "--recipe", "log_mel", "--picture", "filters", "-o", output)[0] == 0
    own = ("--root", built.root, "--picture", "filters", "-o", output)
    assert basilar("plot", built.plan.key[:8], *own)[0] == 0


def test_what_cannot_be_drawn_is_said(basilar, built, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    file, output = tmp_path / "text.wav", tmp_path / "x.png"
    key, recipe = built.plan.key[:8], ("--recipe", LOG_MEL)
    for arguments, said in (
        ((file, *recipe, "-o", tmp_path / "x.jpg"), "x.jpg to do: the suffix must be .png or .svg"),
        ((file, *recipe, "-o", output, "--picture", "cepstrum"), "'mel_scale'"),
        (
            (file, *recipe, "-o", output),
            "no audio format is recognised",
        ),
        ((tmp_path / "none.wav", *recipe, "-o", output), "none.wav to do: check its path"),
        ((file, "-o", output), "to do: name --recipe for a file, --root for a stored clip"),
        (
            (file, *recipe, "--root", built.root, "-o", output),
            "it takes either --recipe or --root",
        ),
        (
            (key, "a/00.wav", *recipe, "-o", output),
            "where: a/00.wav to do: name --root, no --recipe",
        ),
        (("zz", "a/00.wav", "--root", built.root, "-o", output), "no feature set with a key"),
        ((key, "a/06.wv", "--root", built.root, "-o", output), "did you mean a/06.wav?"),
        ((*recipe, "-o", output), "this picture needs a clip"),
    ):
        code, _, err = basilar("plot", *arguments)
        assert code == 2, arguments
        assert said in " ".join(err.split()), arguments
    assert not output.exists()


def test_a_report_is_written_of_one_set_and_of_two(as_json, basilar, built, tmp_path):
    key, output = built.plan.key, tmp_path / "new" / "report.html"
    code, found = as_json("report", key[:6], "--root", built.root, "-o", output)
    assert code == 0
    assert found == {"keys": [key], "output": str(output), "bytes": output.stat().st_size}
    first = output.read_bytes()
    assert basilar("report", key, "--root", built.root, "-o", output)[0] == 0
    assert output.read_bytes() == first
    code, found = as_json("report", key, key[:8], "--root", built.root, "-o", output)
    assert (code, found["keys"]) == (0, [key, key])
    assert "the values are equal" in output.read_text("utf-8")


def test_reports_of_nothing_and_of_another_kind_are_refused(basilar, built, tmp_path):
    code, _, err = basilar("report", "zz", "--root", built.root, "-o", tmp_path / "x.html")
    assert code == 2
    assert "no feature set" in err
    code, _, err = basilar("report", built.plan.key, "--root", built.root, "-o", tmp_path / "x.pdf")
    assert code == 2
    assert "the suffix must be .html" in err
    assert not (tmp_path / "x.pdf").exists()
