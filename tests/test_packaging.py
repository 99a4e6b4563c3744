"""What an installation is made of."""

import configparser
from pathlib import Path


def test_an_editable_install_is_a_folder_on_the_path() -> None:
    """README installs plainly, runs, then installs editably: folders with compiled kernels stay in site-packages.

    A folder on the path comes before them, for it holds modules; the import hook that setuptools writes for any other `package_dir` comes
    after them, and `import accelsim` finds empty folders.
    """
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    assert settings["options"]["package_dir"].split() == ["=", "."]
