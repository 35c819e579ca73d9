"""The verdict: score and status, what cannot be assessed, and each reason for review at its border."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_grids import classes_of, in_a_row, sure_of

from her2bridge.records import (
    LEFT_OUT,
    NOT_ASSESSABLE,
    SlideScore,
    Specimen,
    Status,
    TileClass,
    TileCounts,
    WhspnReading,
)
from her2bridge.scoring import Circumstances, ScoreSettings, score_slide, status_of

RESECTION, BIOPSY, NOT_STATED = Specimen.RESECTION, Specimen.BIOPSY, Specimen.NOT_STATED
PLAIN = Circumstances(specimen=RESECTION)
SIX = st.tuples(*[st.integers(0, 80)] * 6)


def score(
    counts: Sequence[int], circumstances: Circumstances = PLAIN, settings: ScoreSettings | None = None
) -> SlideScore:
    """The score of so many tiles of each class, none touching another, none sure."""
    classes = classes_of(counts)
    return score_slide(in_a_row(len(classes), apart=2), classes, sure_of(classes, 0.6), circumstances, settings)


def reasons(counts: Sequence[int], circumstances: Circumstances = PLAIN) -> str:
    return "\n".join(score(counts, circumstances).review)


class TestReading:
    def test_three_readings_of_four_scores(self) -> None:
        assert [str(status_of(grade)) for grade in list(TileClass)[:4]] == [
            "Negative",
            "Negative",
            "Equivocal (ISH advised)",
            "Positive",
        ]

    @pytest.mark.parametrize(
        ("counts", "label", "status"),
        [
            ((100, 0, 0, 0), "0", Status.NEGATIVE),
            ((0, 100, 0, 0), "1+", Status.NEGATIVE),
            ((0, 0, 100, 0), "2+", Status.EQUIVOCAL),
            ((0, 0, 0, 100), "3+", Status.POSITIVE),
        ],
    )
    def test_a_slide_of_one_class(self, counts: tuple[int, ...], label: str, status: Status) -> None:
        result = score(counts)
        assert (result.score, result.rule_score, result.status, result.review) == (label, label, status, ())
        assert result.assessable

    def test_regions_are_counted_apart_and_the_slide_once(self) -> None:
        classes = classes_of((60, 0, 0, 40))
        result = score_slide(in_a_row(100, regions=2), classes, sure_of(classes), PLAIN)
        assert result.region_counts == (TileCounts((60, 0, 0, 40, 0, 0)), TileCounts((0, 0, 0, 0, 0, 0)))
        assert result.counts == result.region_counts[0]

    def test_a_person_who_takes_tiles_out_changes_the_shares(self) -> None:
        classes = classes_of((100, 0, 0, 10))
        probabilities = sure_of(classes)
        assert score_slide(in_a_row(110), classes, probabilities, PLAIN).score == "0"
        classes[:10] = LEFT_OUT
        assert score_slide(in_a_row(110), classes, probabilities, PLAIN).score == "3+"

    @given(SIX, st.sampled_from(list(Specimen)))
    def test_what_always_holds(self, counts: tuple[int, ...], specimen: Specimen) -> None:
        result = score(counts, Circumstances(specimen=specimen))
        assert result.counts.by_class == counts
        assert result.specimen is specimen
        assert result.assessable is (result.rule_score is not None) is (result.status is not Status.NOT_ASSESSABLE)
        assert result.assessable is (sum(counts[:4]) >= 50)
        assert result.assessable or any("too little tumour" in reason for reason in result.review)
        if result.assessable:
            assert result.score == result.rule_score
            assert result.status is status_of(TileClass.from_label(result.score))

    @given(SIX, st.integers(0, 2))
    def test_a_stronger_tile_never_lowers_the_score(self, counts: tuple[int, ...], weak: int) -> None:
        more = list(counts)
        more[weak] += 50
        stronger = list(more)
        stronger[weak] -= 1
        stronger[weak + 1] += 1
        assert TileClass.from_label(score(stronger).score) >= TileClass.from_label(score(more).score)


class TestSpecimen:
    FOCAL = (99, 0, 0, 1)

    def score(self, specimen: Specimen, certainty: float = 1.0) -> SlideScore:
        classes = classes_of(self.FOCAL)
        return score_slide(in_a_row(100), classes, sure_of(classes, certainty), Circumstances(specimen=specimen))

    def test_the_rule_is_the_specimens(self) -> None:
        assert [self.score(specimen).score for specimen in (RESECTION, BIOPSY, NOT_STATED)] == ["0", "3+", "0"]
        assert self.score(BIOPSY).rule_score == "3+"

    def test_a_biopsy_is_always_for_review(self) -> None:
        assert any("at least 5 cells" in reason for reason in self.score(BIOPSY).review)

    def test_not_stated_is_for_review_where_it_matters(self) -> None:
        def asks(result: SlideScore) -> bool:
            return "specimen not stated: as a biopsy the score would be 3+" in result.review

        assert asks(self.score(NOT_STATED))
        assert not asks(self.score(NOT_STATED, certainty=0.8))
        assert not asks(self.score(RESECTION))


class TestNotAssessable:
    @pytest.mark.parametrize(("tiles", "assessable"), [(50, True), (49, False), (0, False)])
    def test_by_tiles(self, tiles: int, assessable: bool) -> None:
        result = score((0, 0, 0, tiles, 60, 60))
        assert result.assessable is assessable
        assert (result.status is Status.NOT_ASSESSABLE) is not assessable
        assert (result.score == NOT_ASSESSABLE) is not assessable
        assert result.counts.tumour == tiles

    def test_by_area(self) -> None:
        """At 0.2 µm/px a tile has 0.00262 mm²: 76 of them fall short of 0.2 mm², 77 do not."""
        for tiles, assessable in ((76, False), (77, True)):
            classes = classes_of((tiles,))
            grid = dataclasses.replace(in_a_row(tiles), spec=dataclasses.replace(in_a_row(1).spec, mpp=0.2))
            assert score_slide(grid, classes, sure_of(classes), PLAIN).assessable is assessable

    def test_the_reason_comes_first_and_says_how_little(self) -> None:
        result = score((0, 0, 0, 20, 0, 80), Circumstances(specimen=BIOPSY, whole_slide=True))
        assert result.review[0] == "too little tumour found: 20 tiles, 0.08 mm²"
        assert not any("strong staining" in reason or "close to" in reason for reason in result.review)
        assert any("noise" in reason for reason in result.review)

    @pytest.mark.parametrize("specimen", list(Specimen))
    def test_no_tumour_is_never_a_score(self, specimen: Specimen) -> None:
        nothing_asked = ScoreSettings(min_tumour_tiles=0, min_tumour_mm2=0.0)
        for counts in ((0, 0, 0, 0, 9, 0), (0,)):
            assert score(counts, Circumstances(specimen=specimen), nothing_asked).score == NOT_ASSESSABLE
        assert score((1,), PLAIN, nothing_asked).score == "0"

    def test_both_limits_can_be_set(self) -> None:
        assert score((30,), PLAIN, ScoreSettings(min_tumour_tiles=30, min_tumour_mm2=0.1)).assessable
        assert not score((30,), PLAIN, ScoreSettings(min_tumour_tiles=30)).assessable
        assert not score((60,), PLAIN, ScoreSettings(min_tumour_tiles=61)).assessable


class TestReviewOfShares:
    @pytest.mark.parametrize(
        ("counts", "expected"), [((999, 0, 0, 1), True), ((901, 0, 0, 99), True), ((900, 0, 0, 100), False)]
    )
    def test_any_strong_staining_below_a_tenth(self, counts: tuple[int, ...], expected: bool) -> None:
        assert ("strong staining in" in reasons(counts)) is expected

    def test_strong_staining_says_how_much_and_what_to_do(self) -> None:
        assert "strong staining in 9.1 % of tumour tiles: consider ISH or another block" in reasons((100, 0, 0, 10))

    @pytest.mark.parametrize(
        ("two_plus", "expected"), [(49, False), (50, True), (99, True), (100, True), (149, True), (150, False)]
    )
    def test_a_deciding_share_between_5_and_15_percent(self, two_plus: int, expected: bool) -> None:
        said = reasons((0, 1000 - two_plus, two_plus, 0))
        assert ("close to the 10 % that decide: 2+ or stronger" in said) is expected

    def test_shares_that_do_not_decide_are_passed_over(self) -> None:
        """3+ decides here; that 2+ or stronger is at 12 % as well changes nothing, and neither does 1+ at 14 %."""
        said = score((860, 20, 0, 120)).review
        assert [reason for reason in said if "close to" in reason] == [
            "close to the 10 % that decide: 3+ or stronger in 12.0 %"
        ]

    def test_the_next_grade_decides_too(self) -> None:
        assert "1+ or stronger in 8.0 %" in reasons((92, 8))
        assert "close to" not in reasons((0, 50, 50, 0))

    def test_a_biopsy_turns_on_no_share(self) -> None:
        assert "close to" not in reasons((900, 100), Circumstances(specimen=BIOPSY))
        assert "strong staining" in reasons((999, 0, 0, 1), Circumstances(specimen=BIOPSY))


class TestReviewOfTheField:
    @pytest.mark.parametrize(("noise", "expected"), [(20, False), (21, True)])
    def test_noise(self, noise: int, expected: bool) -> None:
        said = reasons((100 - noise, 0, 0, 0, 0, noise))
        assert (f"noise in {noise}.0 % of all tiles" in said) is expected

    @pytest.mark.parametrize(("normal", "expected"), [(120, False), (121, True)])
    def test_normal(self, normal: int, expected: bool) -> None:
        assert ("normal in" in reasons((200 - normal, 0, 0, 0, normal, 0))) is expected

    @pytest.mark.parametrize(("others", "expected"), [(0, False), (1, True)])
    def test_other_graded_detections(self, others: int, expected: bool) -> None:
        said = reasons((100,), Circumstances(specimen=RESECTION, other_graded=others))
        assert (f"{others} other detections with graded classes" in said) is expected

    def test_whole_slide(self) -> None:
        assert "whole slide" in reasons((100,), Circumstances(specimen=RESECTION, whole_slide=True))
        assert "whole slide" not in reasons((100,))

    def test_notes_of_earlier_steps_come_last(self) -> None:
        result = score((100, 0, 0, 1), Circumstances(specimen=RESECTION, notes=("coarse", "odd")))
        assert result.review[-2:] == ("coarse", "odd")

    def test_thresholds_can_be_set(self) -> None:
        settings = ScoreSettings(max_noise=0.0, max_normal=0.0, doubt_low=0.4, doubt_high=0.6)
        said = "\n".join(score((50, 50, 0, 0, 1, 1), PLAIN, settings).review)
        assert all(words in said for words in ("noise in", "normal in", "1+ or stronger in 50.0 %"))


class TestWhspn:
    LABELS = ("0", "1+", "2+", "3+")

    def score(
        self,
        says: str,
        counts: Sequence[int] = (0, 0, 100, 0),
        specimen: Specimen = RESECTION,
        margin: float | None = 0.9,
        settings: ScoreSettings | None = None,
        *,
        whole_slide: bool = False,
    ) -> SlideScore:
        """The score where the WHSPN says this; by the rule, the counts are 2+ unless given."""
        classes = classes_of(counts)
        reading = WhspnReading(says, "MLP", margin, "made numbers")
        circumstances = Circumstances(specimen=specimen, whole_slide=whole_slide)
        grid = in_a_row(len(classes), apart=2)
        return score_slide(grid, classes, sure_of(classes, 0.6), circumstances, settings, lambda seen: reading)

    def test_it_is_told_the_counts(self) -> None:
        heard = []

        def listen(counts: TileCounts) -> WhspnReading:
            heard.append(counts)
            return WhspnReading("0", "MLP", 1.0, "x")

        classes = classes_of((60, 5, 4, 3, 2, 1))
        score_slide(in_a_row(75), classes, sure_of(classes), PLAIN, None, listen)
        assert heard == [TileCounts((60, 5, 4, 3, 2, 1))]

    def test_decides_on_a_resection(self) -> None:
        result = self.score("1+", counts=(100, 0, 0, 0))
        assert (result.score, result.rule_score, result.status) == ("1+", "0", Status.NEGATIVE)
        assert result.whspn == WhspnReading("1+", "MLP", 0.9, "made numbers")
        assert result.review == ()  # another score, and the same reading

    def test_is_told_and_does_not_decide_where_the_specimen_is_not_stated(self) -> None:
        result = self.score("1+", counts=(100, 0, 0, 0), specimen=NOT_STATED)
        assert (result.score, result.rule_score, result.status) == ("0", "0", Status.NEGATIVE)
        assert result.whspn is not None

    @pytest.mark.parametrize("specimen", [RESECTION, NOT_STATED])
    @pytest.mark.parametrize("says", LABELS)
    def test_another_status_is_discordant(self, says: str, specimen: Specimen) -> None:
        result = self.score(says, specimen=specimen, whole_slide=True)
        assert result.score == (says if specimen is RESECTION else "2+")
        if says == "2+":
            assert result.status is Status.EQUIVOCAL
            assert "discordant" not in "\n".join(result.review)
        else:
            assert result.status is Status.DISCORDANT
            assert str(result.status) == "Discordant (review)"
            assert result.review[0] == f"discordant: 2+ by the rule, {says} by the WHSPN"
            assert result.review[1].startswith("whole slide")

    @given(SIX, st.sampled_from(LABELS), st.sampled_from(list(Specimen)))
    def test_what_always_holds(self, counts: tuple[int, ...], says: str, specimen: Specimen) -> None:
        result, alone = self.score(says, counts, specimen), score(counts, Circumstances(specimen=specimen))
        assert result.rule_score == alone.rule_score
        assert set(alone.review) <= set(result.review)
        if not alone.assessable or specimen is BIOPSY:
            assert dataclasses.replace(result, whspn=None) == alone
            assert result.whspn is None
            return
        same = status_of(TileClass.from_label(says)) is alone.status
        assert result.status is (alone.status if same else Status.DISCORDANT)
        assert result.score == (says if specimen is RESECTION else alone.score)

    def test_biopsies_are_not_for_it(self) -> None:
        """It learned from shares of resections; a biopsy turns on a focus."""
        result = self.score("3+", specimen=BIOPSY)  # tiles apart and none sure: no focus
        assert (result.score, result.status, result.whspn) == ("0", Status.NEGATIVE, None)

    def test_too_little_stays_too_little(self) -> None:
        result = self.score("3+", counts=(0, 0, 10, 0))
        assert (result.score, result.status, result.whspn) == (NOT_ASSESSABLE, Status.NOT_ASSESSABLE, None)
        assert "WHSPN" not in "\n".join(result.review)

    @pytest.mark.parametrize(("margin", "expected"), [(0.0, True), (0.19, True), (0.2, False), (1.0, False)])
    def test_a_small_margin_is_for_review(self, margin: float, expected: bool) -> None:
        said = self.score("2+", margin=margin).review
        assert said == ((f"the WHSPN is not sure: margin {margin:.2f}",) if expected else ())

    def test_the_least_margin_can_be_set(self) -> None:
        assert self.score("2+", margin=0.45, settings=ScoreSettings(min_whspn_margin=0.5)).review
        assert not self.score("2+", margin=0.05, settings=ScoreSettings(min_whspn_margin=0.0)).review

    def test_the_svm_has_no_margin_to_be_small(self) -> None:
        assert not self.score("2+", margin=None).review

    def test_shares_are_judged_by_the_rule(self) -> None:
        """The WHSPN's score has no border at 10 %; what lies near it is the rule's."""
        said = self.score("0", counts=(0, 92, 0, 8)).review
        assert any("close to the 10 % that decide: 2+ or stronger" in reason for reason in said)


def test_the_arguments_are_left_as_they_were() -> None:
    classes = classes_of((50, 0, 0, 50))
    probabilities = sure_of(classes)
    before = classes.copy(), probabilities.copy()
    score_slide(in_a_row(100), classes, probabilities, PLAIN)
    np.testing.assert_array_equal(classes, before[0])
    np.testing.assert_array_equal(probabilities, before[1])
