"""Loading plugins: everything that is wrong stops the launch and is named."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ptm_plus.components import Event, Feature
from ptm_plus.context import ATTRIBUTES, Context
from ptm_plus.contract import PHASES, check_contract
from ptm_plus.discovery import discover, read_info
from ptm_plus.errors import DataError, PluginError, PtmPlusError, SettingsError
from ptm_plus.plugins import Plugins, load
from ptm_plus.settings import RunSettings

_NUMBERS = count()

HEAD = """
from dataclasses import dataclass
from ptm_plus import Claim, ControlToken, DataError, Feature, PluginInfo, Section, hookimpl

class Settings(Section):
    weight: float = 1.0
    blocks: tuple[int, ...] = ()

@dataclass
class Base:
    settings: object
    instance: str
"""

HOOKS = """
class Hooks(Base):
    @hookimpl
    def ptm_features(self, context):
        return [Feature(name=self.instance, compute=len)]
"""


class Site:
    """A folder on sys.path with distributions in it, as pip leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        source: str = HOOKS,
        info: str = "hooks=Hooks, settings=Settings",
        *,
        distribution: str = "",
        version: str = "1.0",
        attribute: str = "plugin",
        metadata: str = "",
    ) -> str:
        """Install a plugin and return its module."""
        module = f"site_module_{next(_NUMBERS)}"
        distribution = distribution or f"dist-{name}"
        body = HEAD + textwrap.dedent(source)
        body += f"\nplugin = PluginInfo(name={name!r}, {info})\n" if info else ""
        (self.folder / f"{module}.py").write_text(body, encoding="utf-8")
        folder = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{metadata}\n"
        )
        (folder / "entry_points.txt").write_text(
            f"[ptm_plus.plugins]\n{name} = {module}:{attribute}\n"
        )
        return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(("site_module_", "ptm_plus_file_")):
            del sys.modules[name]


def context() -> Context:
    made = Context(RunSettings())
    for phase in PHASES[1:]:
        made.advance(phase, **dict.fromkeys(ATTRIBUTES[phase]))
    return made


def refused(
    requests: list[str],
    tables: dict[str, Any] | None = None,
    kind: type[PtmPlusError] = PluginError,
) -> str:
    with pytest.raises(kind) as caught:
        load(requests, tables or {})
    assert caught.value.exit_code == {PluginError: 3, SettingsError: 2}.get(kind, 4)
    return str(caught.value)


# Discovery


def test_discovery_reads_metadata_and_imports_nothing(site: Site) -> None:
    module = site.install("zeta", "raise RuntimeError('imported')")
    site.install("alpha", version="2.5")
    found = [one for one in discover() if one.distribution.startswith("dist-")]
    assert [(one.name, one.distribution, one.version) for one in found] == [
        ("alpha", "dist-alpha", "2.5"),
        ("zeta", "dist-zeta", "1.0"),
    ]
    assert module not in sys.modules


def test_only_what_was_asked_for_is_imported(site: Site) -> None:
    broken = site.install("broken", "raise RuntimeError('imported')")
    site.install("good")
    assert [one.instance for one in load(["good"], {}).instances] == ["good"]
    assert broken not in sys.modules


def test_missing_extra_is_listed_and_stops_a_run_with_its_install_line(site: Site) -> None:
    extra = (
        "Provides-Extra: needy\n"
        "Requires-Dist: no-such-package>=3; extra == 'needy'\n"
        "Requires-Dist: pluggy>=999; extra == 'needy'\n"
        "Requires-Dist: pydantic>=1; extra == 'needy'\n"
        "Requires-Dist: also-absent; extra == 'other'\n"
        "Requires-Dist: absent-too\n"
        "Requires-Dist: absent-three; python_version >= '3'\n"
    )
    module = site.install("needy", metadata=extra)
    (found,) = [one for one in discover() if one.name == "needy"]
    assert found.missing == ("no-such-package>=3", "pluggy>=999")
    assert refused(["needy"]) == (
        "plugin 'needy' (dist-needy 1.0) needs no-such-package>=3, pluggy>=999, which is not "
        'installed\nhint: pip install "dist-needy[needy]"'
    )
    assert module not in sys.modules


# Names


def test_unknown_name_has_the_nearest_and_the_list(site: Site) -> None:
    site.install("kg-fusoin-x")
    site.install("other-x")
    message = refused(["kg-fusion-x"])
    assert message.startswith("unknown plugin 'kg-fusion-x'; did you mean 'kg-fusoin-x'?")
    assert "kg-fusoin-x" in message.split("installed: ")[1]
    assert "other-x" in message.split("installed: ")[1]


def test_unknown_name_that_is_an_extra_has_the_install_line(site: Site) -> None:
    folder = site.folder / "ptm_plus-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ptm-plus\nVersion: 0.1.0\nProvides-Extra: k-bert\n"
    )
    assert refused(["k-bert"]).endswith('hint: pip install "ptm-plus[k-bert]"')


@pytest.mark.parametrize("word", ["", ":", "a:", ":b", "a b", "a:b:c d", "../x", "a/b", "x.py:"])
def test_words_that_name_no_plugin(word: str) -> None:
    assert f"{word!r} does not name a plugin" in refused([word])


def test_two_distributions_with_one_name_are_both_named(site: Site) -> None:
    site.install("twice", distribution="first-dist", version="1.1")
    site.install("twice", distribution="second-dist", version="2.2")
    message = refused(["twice"])
    assert "first-dist 1.1 and second-dist 2.2" in message
    assert "pip uninstall second-dist" in message


def test_one_instance_may_be_asked_for_once(site: Site) -> None:
    site.install("one")
    assert "plugin 'one' is asked for 2 times" in refused(["one", "one"])
    assert "plugin 'one:a' is asked for 2 times" in refused(["one:a", "one", "one:a"])
    both = load(["one:b", "one:a", "one"], {})
    assert [plugin.instance for plugin in both.instances] == ["one", "one:a", "one:b"]


# Import


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module", "no module named 'no_such_module'"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_failing_import_names_plugin_distribution_and_cause(
    site: Site, source: str, cause: str
) -> None:
    site.install("bad", source, version="0.3")
    message = refused(["bad"])
    assert message.startswith("plugin 'bad' (dist-bad 0.3): ")
    assert cause in message


def test_missing_module_has_an_install_line(site: Site) -> None:
    site.install("bad", "import no_such_module")
    assert 'pip install "dist-bad[bad]"' in refused(["bad"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribute": "plugni"}, "has no 'plugni'; did you mean 'plugin'?"),
        ({"attribute": "Hooks"}, "is a type, not a PluginInfo"),
        ({"info": "", "source": "plugin = PluginInfo(name='x', hooks='a:b')"}, "the name 'x'"),
        ({"info": "hooks='no_such:Hooks'"}, "no module named 'no_such'"),
        ({"info": "hooks='json:Hooks'"}, "json has no 'Hooks'"),
        ({"info": "hooks=Hooks, settings=int"}, "no pydantic model"),
        ({"info": "hooks=Hooks, settings='json:loads'"}, "no pydantic model"),
    ],
)
def test_static_data_must_be_right(site: Site, options: Any, message: str) -> None:
    site.install("bad", **options)
    text = refused(["bad"])
    assert text.startswith("plugin 'bad' (dist-bad 1.0): ")
    assert message in text


def test_core_is_no_name_for_a_plugin(site: Site) -> None:
    site.install("core")
    assert "'core' cannot be the name" in refused(["core"])


def test_static_data_is_read_without_its_hooks(site: Site) -> None:
    site.install("lazy", info="hooks='no_such_module:Hooks', summary='Sleeps.'")
    (found,) = [one for one in discover() if one.name == "lazy"]
    assert read_info(found).summary == "Sleeps."


# Contract


@pytest.mark.parametrize("wanted", [">=1,<2", "==1.*", "~=1.0", ">=0.9"])
def test_contract_ranges_that_hold(wanted: str) -> None:
    check_contract(wanted, "plugin 'x'")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (">=2,<3", "install a newer ptm-plus"),
        (">=10", "install a newer ptm-plus"),
        ("==2.*", "install a newer ptm-plus"),
        ("<1", "install a newer version of the plugin"),
        ("==0.9", "install a newer version of the plugin"),
        ("1.0", "cannot be read"),
        ("about one", "cannot be read"),
        ("", "is empty"),
    ],
)
def test_contract_ranges_that_do_not(site: Site, wanted: str, message: str) -> None:
    site.install("x", info=f"hooks=Hooks, contract={wanted!r}")
    text = refused(["x"])
    assert text.startswith("plugin 'x' (dist-x 1.0): ")
    assert message in text


# Settings


def test_settings_reach_the_instance_that_they_name(site: Site) -> None:
    site.install("kg")
    tables = {"kg": {"weight": 2}, "kg:b": {"blocks": [1, 2]}}
    plain, other = load(["kg", "kg:b"], tables).instances
    assert plain.settings == plain.implementation.settings
    assert (plain.settings.weight, plain.settings.blocks) == (2.0, ())  # type: ignore[union-attr]
    assert (other.settings.weight, other.settings.blocks) == (1.0, (1, 2))  # type: ignore[union-attr]
    assert other.implementation.instance == "kg:b"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"kg": {"weigth": 2}}, "unknown key 'plugin.kg.weigth'; did you mean 'plugin.kg.weight'?"),
        ({"kg": {"weight": "much"}}, "plugin.kg.weight: found 'much', expected a valid number"),
        ({"kg": {"blocks": 3}}, "plugin.kg.blocks: found 3, expected a valid tuple"),
        ({"kgg": {"weight": 2}}, "plugin.kgg: no plugin of this run has that name; did you mean"),
        ({"kg:b": {"weight": 2}}, 'plugin."kg:b": no plugin of this run has that name'),
    ],
)
def test_settings_that_are_refused(site: Site, tables: Any, message: str) -> None:
    site.install("kg")
    assert message in refused(["kg"], tables, SettingsError)


def test_a_table_for_a_plugin_that_takes_none_is_refused(site: Site) -> None:
    site.install("bare", info="hooks=Hooks")
    assert load(["bare"], {"bare": {}}).instances[0].settings is None
    message = refused(["bare"], {"bare": {"x": 1}}, SettingsError)
    assert "plugin.bare.x: this plugin has no settings" in message


def test_a_table_of_an_installed_plugin_that_was_not_asked_for_is_left_alone(site: Site) -> None:
    site.install("kg")
    site.install("tlm-x")
    assert len(load(["kg"], {"tlm-x": {"anything": 1}}).instances) == 1


# Making and hooks


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Hooks:\n    pass", "cannot be made: TypeError"),
        ("class Hooks(Base):\n    pass", "Hooks implements no hook"),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_part(self, context): pass",
            "unknown hook 'ptm_part'; did you mean 'ptm_parts'?",
        ),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_parts(self, contxt): pass",
            "unknown argument 'contxt' of ptm_parts; did you mean 'context'?",
        ),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_parts(self, event): pass",
            "unknown argument 'event' of ptm_parts",
        ),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_parts(self, *, context): pass",
            "argument 'context' of ptm_parts cannot be passed",
        ),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_parts(self, **context): pass",
            "argument '**context' of ptm_parts cannot be passed",
        ),
        (
            "class Hooks(Base):\n    @hookimpl\n    def ptm_parts(self, *context): pass",
            "argument '*context' of ptm_parts cannot be passed",
        ),
        (
            HOOKS + "\n    def ptm_parts(self, context): pass",
            "ptm_parts has no @hookimpl",
        ),
        (
            "class Hooks(Base):\n    @hookimpl(tryfirst=True)\n    def ptm_parts(self): pass",
            "@hookimpl(tryfirst=…) of ptm_parts has no meaning here",
        ),
    ],
)
def test_hooks_that_are_refused(site: Site, source: str, message: str) -> None:
    site.install("bad", source)
    text = refused(["bad"])
    assert text.startswith("plugin 'bad' (dist-bad 1.0): ")
    assert message in text


def test_a_plugin_may_stop_the_launch_with_an_error_of_its_own(site: Site) -> None:
    site.install(
        "strict",
        """
        class Hooks:
            def __init__(self, settings, instance):
                raise DataError("no such table", path="t.tsv", line=3)
        """,
    )
    assert refused(["strict"], kind=DataError) == "t.tsv:3: no such table"


def test_a_hook_may_have_another_name_and_no_arguments(site: Site) -> None:
    site.install(
        "named",
        """
        class Hooks(Base):
            @hookimpl(specname="ptm_special_tokens")
            def tokens(self):
                return [ControlToken(text="[X]")]
        """,
    )
    (token,) = load(["named"], {}).collect("ptm_special_tokens", context())
    assert token.component.text == "[X]"


# Order and claims


def test_the_order_of_requests_changes_nothing(site: Site) -> None:
    for name in ("a", "b", "c"):
        site.install(name)
    ways = (["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"])
    answers = [
        [one.instance for one in load(way, {}).collect("ptm_features", context())] for way in ways
    ]
    assert answers == [["a", "b", "c"]] * 3


def test_ordered_follows_what_is_declared(site: Site) -> None:
    site.install("a", info="hooks=Hooks, after=('c',)")
    site.install("b")
    site.install("c")
    plugins = load(["a", "b", "c"], {})
    answers = plugins.ordered(plugins.collect("ptm_features", context()))
    assert [one.instance for one in answers] == ["b", "c", "a"]


def test_circles_and_owners_stop_the_launch(site: Site) -> None:
    site.install("a", info="hooks=Hooks, after=('b',)")
    site.install("b", info="hooks=Hooks, after=('a',)")
    site.install("own", info="hooks=Hooks, claims=(Claim(resource='truth', mode='own'),)")
    site.install("share", info="hooks=Hooks, claims=(Claim(resource='truth'),)")
    assert "form a circle: a, b" in refused(["a", "b"])
    assert "plugin 'own' needs 'truth' for itself, and 'share'" in refused(["share", "own"])
    assert "'own:x' needs 'truth'" in refused(["own:x", "own:y"])


# Calling


def calls(site: Site, body: str) -> Plugins:
    site.install(
        "caller",
        f"""
        class Hooks(Base):
            @hookimpl
            def ptm_features(self, context):
                {body}
        """,
        version="4.2",
    )
    return load(["caller"], {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "returned NoneType, not a list of Feature"),
        ("return Feature(name='x', compute=len)", "returned Feature, not a list of Feature"),
        ("return {}", "returned dict, not a list"),
        ("return [ControlToken(text='[X]')]", "a list with ControlToken in it"),
        ("return [[Feature(name='x', compute=len)]]", "a list with list in it"),
        ("raise KeyError('lost')", "ptm_features failed: KeyError: 'lost'"),
        ("yield 1 / 0", "ptm_features failed: ZeroDivisionError"),
        ("return context.run", "ptm_features reads context.run"),
    ],
)
def test_a_hook_that_fails_is_named(site: Site, body: str, message: str) -> None:
    plugins = calls(site, body)
    with pytest.raises(PluginError) as caught:
        plugins.collect("ptm_features", context())
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert message in text
    assert "plugin 'caller' (dist-caller 4.2)" in text


def test_what_a_hook_raised_is_kept_as_the_cause_with_a_note(site: Site) -> None:
    plugins = calls(site, "raise KeyError('lost')")
    with pytest.raises(PluginError) as caught:
        plugins.collect("ptm_features", context())
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__notes__ == [
        "raised by ptm_features of plugin 'caller' (dist-caller 4.2)"
    ]


def test_a_users_mistake_found_by_a_hook_keeps_its_exit_code(site: Site) -> None:
    plugins = calls(site, "raise DataError('bad row', path='x.tsv', line=2)")
    with pytest.raises(DataError, match=r"x\.tsv:2: bad row") as caught:
        plugins.collect("ptm_features", context())
    assert "dist-caller 4.2" in caught.value.__notes__[0]


def test_lists_tuples_and_generators_are_flattened_in_order(site: Site) -> None:
    site.install("a", HOOKS.replace("return [", "yield ").replace("=len)]", "=len)"))
    site.install("b", HOOKS.replace("[Feature", "[Feature(name='first', compute=len), Feature"))
    site.install("c", HOOKS.replace("return [", "return (").replace("=len)]", "=len),)"))
    answers = load(["c", "b", "a"], {}).collect("ptm_features", context())
    assert all(isinstance(one.component, Feature) for one in answers)
    assert [(one.instance, one.component.name) for one in answers] == [
        ("a", "a"),
        ("b", "first"),
        ("b", "b"),
        ("c", "c"),
    ]


def test_events_reach_every_listener_by_name_with_the_run(site: Site) -> None:
    listener = """
    heard = []

    class Hooks(Base):
        @hookimpl
        def ptm_event(self, context, event):
            {body}
    """
    first = site.install(
        "b", listener.format(body="heard.append((self.instance, event.step, context.run))")
    )
    plugins = load(["b:y", "b:x"], {})
    plugins.event(Event("after_step", 7), context())
    assert sys.modules[first].heard == [("b:x", 7, None), ("b:y", 7, None)]

    site.install("a", listener.format(body="raise OSError('disk')"))
    with pytest.raises(PluginError, match=r"plugin 'a' \(dist-a 1.0\): ptm_event failed: OSError"):
        load(["a"], {}).event(Event("after_step", 7), context())


def test_no_plugins_contribute_nothing() -> None:
    plugins = Plugins.empty()
    plugins.event(Event("train_start", 0), context())
    assert plugins.instances == ()
    assert plugins.collect("ptm_parts", context()) == []
    assert load([], {}).instances == ()


# The door without packaging


def test_a_file_is_a_plugin(site: Site) -> None:
    path = site.folder / "mine.py"
    source = HEAD + HOOKS + "\nplugin = PluginInfo(name='mine', hooks=Hooks, settings=Settings)\n"
    path.write_text(source)
    plain, other = load([str(path), f"{path}:b"], {"mine:b": {"weight": 3}}).instances
    assert (plain.instance, other.instance) == ("mine", "mine:b")
    assert plain.distribution == str(path)
    assert plain.version.startswith("sha256:")
    assert other.settings.weight == 3  # type: ignore[union-attr]

    path.write_text(source + "# changed\n")
    assert load([str(path)], {}).instances[0].version != plain.version


def test_a_function_of_a_file_can_be_found_by_workers(site: Site) -> None:
    path = site.folder / "mine.py"
    path.write_text(HEAD + HOOKS + "\nplugin = PluginInfo(name='mine', hooks=Hooks)\n")
    hooks = load([str(path)], {}).instances[0].info.hooks
    assert not isinstance(hooks, str)
    assert getattr(sys.modules[hooks.__module__], hooks.__qualname__) is hooks


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "No such file"),
        ("x = 1", "has no 'plugin'"),
        ("plugin = 3", "is a int, not a PluginInfo"),
        ("import no_such_module", "no module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_files_that_are_refused(site: Site, source: str | None, message: str) -> None:
    path = site.folder / "mine.py"
    if source is not None:
        path.write_text(source)
    text = refused([str(path)])
    assert message in text
    assert str(path) in text


def test_a_broken_file_is_not_remembered(site: Site) -> None:
    path = site.folder / "mine.py"
    path.write_text("1 / 0")
    before = set(sys.modules)
    refused([str(path)])
    assert set(sys.modules) == before
    path.write_text(HEAD + HOOKS + "\nplugin = PluginInfo(name='mine', hooks=Hooks)\n")
    assert load([str(path)], {}).instances[0].instance == "mine"
