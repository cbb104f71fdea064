"""How code is made and run while it is looked into."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.driver.build import Settings
from sqzc.driver.options import CodeOptions
from sqzc.target import Target


@dataclass(frozen=True)
class Setting:
    """What code depends on besides its graph, and on how many threads it runs."""

    target: Target
    opt_level: int = 3
    effort: int = 2
    winograd: str = "auto"
    threads: int = 1

    @staticmethod
    def of(settings: Settings, threads: int = 1) -> Setting:
        """That of a compilation."""
        return Setting(settings.target, settings.opt_level, settings.effort, settings.winograd, threads)

    @property
    def code_options(self) -> CodeOptions:
        """The options by which a graph becomes code as it is, without any pass."""
        return CodeOptions(target=self.target.name, opt_level=self.opt_level, passes="", winograd=self.winograd)

    @property
    def options(self) -> list[str]:
        """The options of `sqzc bisect` that say the same, without those that are the default anyway."""
        given = ["--passes", "", "--target", self.target.name]
        given += [f"-O{self.opt_level}"] if self.opt_level != 3 else []
        given += ["--winograd", self.winograd] if self.winograd != "auto" else []
        return [*given, *(["--threads", str(self.threads)] if self.threads != 1 else [])]
