"""Every message of the parser that a user can meet, provoked and read as one line."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pytest
from jsonargparse import ActionConfigFile

from lsp_lightning.cli.messages import hidden_config_error
from lsp_lightning.cli.parser import Parser
from lsp_lightning.errors import ConfigError


@dataclass(frozen=True)
class Plain:
    """A settings class without subclasses: its keys follow without init_args."""

    size: int = 1


class Pet:
    """A base class that a config names by class_path."""

    def __init__(self, age: float = 1.0) -> None:
        self.age = age


class Cat(Pet):
    """A class inside of which a class is named."""

    def __init__(self, mouse: "Pet | None" = None, colour: Plain = Plain(), **kwargs) -> None:
        super().__init__(**kwargs)


class Needy(Pet):
    """A class with an argument that must be given."""

    def __init__(self, food: str) -> None:
        super().__init__()


class Vague(Pet):
    """A class whose argument has no type; that of its base is passed on."""

    def __init__(self, food, **kwargs) -> None:
        super().__init__(**kwargs)
        self.food = food


class Mute(Pet, ABC):
    """A class that lacks a method."""

    @abstractmethod
    def sound(self) -> str: ...


class Misspelt(Mute):
    """A class with a method of nearly the right name."""

    def sounds(self) -> str:
        return ""


def no_pet(x: int) -> int:
    """A function that makes no pet."""
    return x


class Model:
    """What stands at the top, as a module does."""

    def __init__(
        self,
        base: str,
        rank: int = 1,
        beta: float = 0.5,
        kl: Literal["k1", "k2"] = "k1",
        bits: Literal["nf4"] | None = None,
        norm: float | None = 1.0,
        seed: bool | int = True,
        depth: int = 0,
        whole: bool = False,
        names: dict[str, int] | None = None,
        lora: Plain | None = Plain(),
        sampling: Plain = Plain(),
        pets: list[Pet] | None = None,
        pet: Pet | None = None,
        make: Callable[[Iterable], Pet] = Cat,
        judge: Callable[[int], float] | None = None,
        zoo: list[Pet] | Pet | None = None,
        span: tuple[float, float] | None = None,
        ends: tuple[float, float] = (0, 1),
    ) -> None: ...


def read(args, needed=("--model.base=x",)):
    """Parse a command line with one command, as the package's own is."""
    parser, fit = Parser(prog="lsp"), Parser()
    parser.add_argument("--config", action=ActionConfigFile)
    fit.add_argument("--config", action=ActionConfigFile)
    fit.add_argument("--seed", type=int, default=0)
    fit.add_class_arguments(Model, "model", fail_untyped=False)  # as Lightning does
    fit.link_arguments("seed", "model.depth")
    parser.add_subcommands(dest="subcommand").add_subcommand("fit", fit)
    return parser.parse_args(["fit", *needed, *args])


HERE = __name__
LINES = {
    # a key that is not there
    "flag": (["--model.betta=1"], "model.betta: there is no such key; did you mean 'model.beta'?"),
    "flag like no other": (["--xyz=1"], "xyz: there is no such key; see --help for the keys"),
    "in a file": ("model: {betta: 1}", "model.betta: there is no such key; did you mean 'model.b"),
    "at the top of a file": ("modell: 1", "modell: there is no such key; did you mean 'model"),
    "in a group of a file": (
        "model: {sampling: {sice: 1}}",
        "model.sampling.sice: there is no such key; did you mean 'model.sampling.size'?",
    ),
    "at the top, though it is a key of a group": (
        "pet: {age: 1}",
        "pet: there is no such key; did you mean 'model.pet'?",
    ),
    "in another group": (
        "other: {pet: {age: 1}}",
        "other.pet: there is no such key; did you mean 'model.pet'?",
    ),
    "in plain settings": (
        ["--model.lora.sice=1"],
        "model.lora.sice: there is no such key; did you mean 'size'?",
    ),
    "in a class": (
        [f'--model.pet={{"class_path": "{HERE}.Cat", "init_args": {{"agge": 1}}}}'],
        "model.pet.init_args.agge: there is no such key; did you mean 'age'?",
    ),
    "in a class by flag": (
        [f"--model.pet={HERE}.Cat", "--model.pet.init_args.agge=1"],
        "model.pet.init_args.agge: there is no such key; did you mean 'age'?",
    ),
    "in a class of a list": (
        [f'--model.pets=[{{"class_path": "{HERE}.Pet", "init_args": {{"xyz": 1}}}}]'],
        "model.pets.Pet.xyz: there is no such key; the keys here are age",
    ),
    "in a class of a class": (
        f"model: {{pet: {{class_path: {HERE}.Cat, init_args: "
        f"{{mouse: {{class_path: {HERE}.Pet, init_args: {{agge: 1}}}}}}}}}}",
        "model.pet.init_args.mouse.init_args.agge: there is no such key; did you mean 'age'?",
    ),
    "in plain settings of a class": (
        [f'--model.pet={{"class_path": "{HERE}.Cat", "init_args": {{"colour": {{"sice": 1}}}}}}'],
        "model.pet.init_args.colour.sice: there is no such key; did you mean 'colour.size'?",
    ),
    "in plain settings of a class by flag": (
        [f"--model.pet={HERE}.Cat", "--model.pet.init_args.colour.sice=1"],
        "model.pet.init_args.colour.sice: there is no such key; did you mean 'colour.size'?",
    ),
    "typed in part": (
        [f"--model.pet={HERE}.Cat", "--model.pet.init_args.colour.siz=1"],
        "model.pet.init_args.colour.siz: there is no such key; did you mean 'colour.size'?",
    ),
    "of what makes a class": (
        ["--model.make.init_args.agge=1"],
        "model.make.init_args.agge: there is no such key; did you mean 'age'?",
    ),
    # a value of another kind
    "whole number": (["--model.rank=x"], "model.rank: must be a whole number, is x; see --help"),
    "number": (["--model.beta=x"], "model.beta: must be a number, is x; see --help"),
    "true or false": (["--model.whole=5"], "model.whole: must be true or false, is 5; see"),
    "a choice": (["--model.kl=k3"], "model.kl: must be one of 'k1', 'k2', is k3; see --help"),
    "a choice or null": (["--model.bits=x"], "model.bits: must be one of 'nf4' or null, is x;"),
    "number or null": (["--model.norm=x"], "model.norm: must be a number or null, is x; see"),
    "two kinds": (["--model.seed=x"], "model.seed: must be true or false or a whole number, is x"),
    "mapping": (["--model.names=5"], "model.names: must be a mapping of keys to values or null, i"),
    "in plain settings, kind": (
        ["--model.lora.size=x"],
        "model.lora.size: must be a whole number, is x; see --help",
    ),
    "in a class, kind": (
        [f'--model.pets=[{{"class_path": "{HERE}.Cat", "init_args": {{"age": "x"}}}}]'],
        "model.pets.Cat.age: must be a number, is x; see --help",
    ),
    "a group that is none": (
        "model: hello",
        "model: must be a mapping of keys to values, is hello; did you mean --model.base hello?",
    ),
    "in a class that may be a list": (
        [f'--model.zoo={{"class_path": "{HERE}.Cat", "init_args": {{"age": "x"}}}}'],
        "model.zoo.init_args.age: must be a number, is x; see --help",
    ),
    # a class that is not there or of another kind
    "no module": (
        ["--model.pet=nowhere.Cat"],
        "model.pet: cannot import nowhere.Cat (No module named 'nowhere'); see --help",
    ),
    "no name in the module": (
        [f'--model.pets=[{{"class_path": "{HERE}.Dog"}}]'],
        f"model.pets: cannot import {HERE}.Dog (module '{HERE}' has no attribute 'Dog'); see",
    ),
    "no optimizer": (
        [f"--model.make.class_path={HERE}.Dog"],
        f"model.make: cannot import {HERE}.Dog (module '{HERE}' has no attribute 'Dog'); see",
    ),
    "no function": (
        [f"--model.judge={HERE}.nothing"],
        f"model.judge: cannot import {HERE}.nothing (module '{HERE}' has no attribute 'nothing')",
    ),
    "another class": (
        [f'--model.pets=[{{"class_path": "{HERE}.Model"}}]'],
        f"model.pets: {HERE}.Model is not a Pet; see --help",
    ),
    "another class by its path alone": (
        [f"--model.pet={HERE}.Model"],
        f"model.pet: {HERE}.Model is not a Pet; see --help",
    ),
    "a class with a method missing": (
        [f"--model.pet={HERE}.Mute"],
        "model.pet: Mute does not define sound; use a class that does",
    ),
    "a class with a method missing, in a mapping": (
        [f'--model.pet={{"class_path": "{HERE}.Mute"}}'],
        "model.pet: Mute does not define sound; use a class that does",
    ),
    "a class with a misspelt method, in a list": (
        [f'--model.pets=[{{"class_path": "{HERE}.Misspelt"}}]'],
        "model.pets: Misspelt does not define sound; rename sounds to sound",
    ),
    "a number for a class": (
        "model: {pet: 0.5}",
        "model.pet: must be a mapping of keys to values, or null, is 0.5; see --help",
    ),
    "one number for two": (
        "model: {span: 0.5}",
        "model.span: must be two numbers, or null, is 0.5; see --help",
    ),
    "another count of numbers": (
        "model: {span: [0.5]}",
        "model.span: must be two numbers, or null, is [0.5]; see --help",
    ),
    "texts for two numbers": (
        "model: {span: [a, b]}",
        "model.span: must be two numbers, or null, is ['a', 'b']; see --help",
    ),
    "one number for two that must be given": (
        ["--model.ends=5"],
        "model.ends: must be two numbers, is 5; see --help",
    ),
    "no path": (
        ["--model.pet=cat"],
        "model.pet: must name a class by its path, as in module.Class, is cat; see --help",
    ),
    "a key that follows another": (["--model.depth=3"], "model.depth: follows seed; set --seed"),
    "no class": (["--model.pets=[5]"], "model.pets: must name a Pet by its class_path, is 5; see"),
    "not to be called": (
        [f"--model.make={HERE}.no_pet"],
        "model.make: cannot be called (Expected",
    ),
    # something left out
    "argument of a class": (
        [f"--model.pet={HERE}.Needy"],
        "model.pet.init_args.food: not set; set it in the config",
    ),
    "argument without a type": (
        [f"--model.pet={HERE}.Vague", "--model.pet.init_args.age=2"],
        "model.pet.init_args.food: not set; set it in the config",
    ),
    "argument of a class that may be a list": (
        [f"--model.zoo={HERE}.Needy"],
        "model.zoo.init_args.food: not set; set it in the config",
    ),
    "no value": (["--model.beta"], "model.beta: has no value; write --model.beta VALUE"),
    "no flag": (["more"], "command: 'more' is not a flag; write flags as --key value"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_message_of_the_parser_is_one_line(case, tmp_path):
    given, line = LINES[case]
    if isinstance(given, str):
        (tmp_path / "c.yaml").write_text(given)
        given = [f"--config={tmp_path / 'c.yaml'}"]
    with pytest.raises(ConfigError) as error:
        read(given)
    assert str(error.value).startswith(line)
    assert len(str(error.value).splitlines()) == 1


def test_an_argument_without_a_type_takes_any_value():
    args = [f"--model.pet={HERE}.Vague", "--model.pet.init_args.food=[1, x]"]
    assert read(args).fit.model.pet.init_args.food == [1, "x"]


def test_a_key_that_must_be_given_is_named_without_the_command():
    with pytest.raises(ConfigError) as error:
        read([], needed=())
    assert str(error.value) == "model.base: not set; give --config FILE"


def test_a_long_value_is_cut_off():
    with pytest.raises(ConfigError) as error:
        read([f"--model.rank={'x' * 900}"])
    assert len(str(error.value)) < 400


def test_an_error_that_a_parser_wrapped_is_found():
    error = ConfigError("data.queries", "is wrong", "fix it")
    outer = ValueError("tried one type")
    outer.__cause__ = error
    assert hidden_config_error(outer) is error
    assert hidden_config_error(ValueError("of another kind")) is None
