"""The readers of recipes: articles, Wikipedia, what is fetched; and words and sentences."""

from __future__ import annotations

import functools
import hashlib
import itertools
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_files import document, run
from corpora import read_rows, rows, write_recipe, write_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ptm_plus.errors import DataError
from ptm_plus.recipes.articles import jats_articles, pubmed_articles
from ptm_plus.recipes.wiki import linked, read_qids, title_key, wiki_pages

PUBMED = """<?xml version="1.0"?>
<PubmedArticleSet>
<PubmedArticle><MedlineCitation><PMID>1</PMID><Article>
<ArticleTitle>On <i>E. coli</i>.</ArticleTitle>
<Abstract><AbstractText Label="AIM">To see.</AbstractText><AbstractText Label="RESULTS">p &lt; 0.05,
H<sub>2</sub>O.</AbstractText></Abstract><Language>ger</Language></Article></MedlineCitation>
</PubmedArticle>
<PubmedArticle><MedlineCitation><PMID>2</PMID><Article><ArticleTitle>No abstract</ArticleTitle>
</Article></MedlineCitation></PubmedArticle>
</PubmedArticleSet>"""


def test_pubmed_gives_title_and_labelled_sections(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PUBMED, encoding="utf-8")
    (article,) = pubmed_articles(str(path))
    assert article["id"] == "1"
    assert article["text"] == "On E. coli.\nAim: To see.\nResults: p < 0.05, H2O."
    assert (article["lang"], article["article_language"]) == ("en", "de")


def test_jats_leaves_out_what_is_no_running_text(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        '<article xml:lang="en"><front><article-meta><article-id pub-id-type="pmid">7</article-id>'
        "<title-group><article-title>Title</article-title></title-group>"
        "<abstract><p>Short.</p></abstract></article-meta></front><body><sec><p>Seen before"
        "<xref>[1]</xref> and <b>after</b>.<fig><caption><p>A figure</p></caption></fig></p></sec>"
        "</body><back><ref-list><ref>Doe</ref></ref-list></back></article>",
        encoding="utf-8",
    )
    (article,) = jats_articles(str(path))
    assert article["id"] == "7"
    assert article["text"].startswith("Title\nShort.\nSeen before and after.")
    assert "Doe" not in article["text"]


@pytest.mark.parametrize("content", [PUBMED[:400], "<other/>", "", "no XML"])
def test_broken_xml_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.xml: "):
        list(pubmed_articles(str(path)))


def test_links_of_a_page_become_mentions(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("Old Town\tQ5\ncafé\tQ6\n", encoding="utf-8")
    qids = read_qids(tmp_path / "q.tsv")
    (tmp_path / "wiki_00").write_text(
        '<doc id="3" url="u" title="A &amp; B">\nA & B\n\nThe <a href="old%20Town#Walls">old town'
        '</a> has a <a href="Café">café</a> and a <a href="Pub">pub</a>.\n\n</doc>\n'
        '{"id": "4", "title": "T", "text": "T\\n\\nplain"}\n',
        encoding="utf-8",
    )
    first, second = wiki_pages(str(tmp_path / "wiki_00"), qids)
    assert (first.id, first.title) == ("3", "A & B")
    assert first.text == "The old town has a café and a pub."
    assert [(first.text[m["start"] : m["end"]], m["qid"]) for m in first.mentions] == [
        ("old town", "Q5"),
        ("café", "Q6"),
    ]
    assert second.text == "plain"


@pytest.mark.parametrize("content", ['<doc id="1">\ntext\n', "neither\n", ""])
def test_what_wikiextractor_never_writes_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "wiki_00").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="wiki_00"):
        list(wiki_pages(str(tmp_path / "wiki_00"), {}))


WORDS = st.text(alphabet="abc é,.", min_size=0, max_size=8)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=6))
def test_a_mention_stands_where_its_words_do(parts: list[tuple[str, str]]) -> None:
    marked = "".join(f'{before}<a href="X">{words}</a>' for before, words in parts)
    text, mentions = linked(marked, {title_key("X"): "Q1"})
    assert text == "".join(before + words for before, words in parts)
    assert [text[one["start"] : one["end"]] for one in mentions] == [
        words for _, words in parts if words.strip()
    ]


# ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *rest: object) -> None:
        pass


@pytest.mark.recipes
def test_a_remote_file_counts_when_its_checksum_does(tmp_path: Path, server: str) -> None:
    pytest.importorskip("datatrove")
    path = write_rows(tmp_path / "served" / "a.jsonl", rows(3))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    remote = {"url": f"{server}/a.jsonl", "sha256": digest}
    write = functools.partial(write_recipe, tmp_path, files=[])
    recipe, corpus = write(remote=[remote]), tmp_path / "corpus"
    flags = ("--workers", "1")
    document("recipe", "build", recipe, "-o", corpus, *flags)
    assert len(read_rows(corpus)) == 3
    wrong = run(
        "recipe", "build", write(remote=[remote | {"sha256": "0" * 64}]), "-o", tmp_path / "d"
    )
    assert wrong.exit_code == 4
    assert "as the recipe says" in wrong.output
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = remote | {"url": f"http://127.0.0.1:{nobody.getsockname()[1]}/a.jsonl"}
        lost = run("recipe", "build", write(remote=[gone]), "-o", tmp_path / "e")
    assert lost.exit_code == 5
    assert "cannot be fetched" in lost.output


# ---------------------------------------------------------------------------------------------


@pytest.mark.recipes
class TestWords:
    @settings(deadline=None)  # the first call imports NLTK and datatrove
    @given(st.text())
    @example("\x1f\u0f71")  # a separator before a vowel sign
    def test_nothing_but_white_space_is_left_out(self, text: str) -> None:
        pytest.importorskip("datatrove")
        from ptm_plus.recipes.words import WORDS, count_words

        words = WORDS.word_tokenize(text)
        assert "".join(words) == "".join(text.split())
        assert count_words(text) == len(words)

    @settings(deadline=None)
    @given(st.text(alphabet="aB. 。\n!?"))
    def test_sentences_are_in_order_and_lose_only_white_space(self, text: str) -> None:
        pytest.importorskip("datatrove")
        from ptm_plus.recipes.words import WORDS

        spans = WORDS.span_tokenize(text)
        assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
        assert all(a < b for a, b in spans)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))

    def test_scripts_and_marks(self) -> None:
        pytest.importorskip("datatrove")
        from ptm_plus.recipes.words import WORDS

        assert WORDS.word_tokenize("Don't go, 你好 नमस्ते") == [
            "Don't", "go", ",", "你", "好", "नमस्ते"
        ]  # fmt: skip
        assert WORDS.sent_tokenize("See Fig. 3. 我们走。Dr. No said so.") == [
            "See Fig. 3.",
            "我们走。",
            "Dr. No said so.",
        ]
