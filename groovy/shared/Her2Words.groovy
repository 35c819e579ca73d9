import groovy.transform.CompileStatic

/** How a score is put into words. A share of tiles is never called a share of cells. */
@CompileStatic
class Her2Words {

    private static final String OPENING = 'AI-assisted, research use only: '
    private static final List<String> STRONGEST_FIRST = ['3+', '2+', '1+', '0']

    static String sentence(Map scored) {
        long tumour = scored.tumour_tiles as long
        if (!isAssessable(scored)) {
            return "${OPENING}not assessable: too little tumour found (${tumour} tumour tiles)."
        }
        String shares = STRONGEST_FIRST.collect { String label -> "${label} ${share(scored, label)}" }.join(', ')
        return "${OPENING}${shares} of ${tumour} tumour tiles."
    }

    static String summary(Map scored) {
        List<CharSequence> lines = forReview(scored.review as List<String>)
        lines << ''
        lines << (isAssessable(scored) ? "Score ${scored.score}: ${scored.status}" : 'Score: Not assessable')
        lines << "Tumour tiles: ${scored.tumour_tiles}"
        if (isAssessable(scored)) {
            STRONGEST_FIRST.each { String label ->
                lines << "    ${label}: ${count(scored, label)} (${share(scored, label)})"
            }
        }
        lines << "Other tiles: ${count(scored, 'normal')} normal, ${count(scored, 'noise')} noise"
        if (scored.corrected_tiles) {
            lines << "Tiles that count as a person classed them: ${scored.corrected_tiles}"
        }
        lines << '' << sentence(scored) << ''
        lines << 'Tiles classed Negative show 0; the status Negative of a slide is something else.'
        lines << 'These are shares of tiles, not of cells. Research use only: it assists, it does not diagnose.'
        return lines.join('\n')
    }

    private static List<CharSequence> forReview(List<String> reasons) {
        List<CharSequence> lines = []
        lines << (reasons ? 'Please review:' : 'No reason was found why this score should be reviewed.')
        reasons.each { String reason -> lines << "    ${reason}" }
        return lines
    }

    private static boolean isAssessable(Map scored) {
        return scored.score in STRONGEST_FIRST
    }

    private static long count(Map scored, String label) {
        return scored.counts[label] as long
    }

    /**
     * A share of the tumour tiles, in whole per cent. Rounding never makes something nothing, a part the whole, or a
     * share below the tenth that decides a tenth.
     */
    private static String share(Map scored, String label) {
        long part = count(scored, label)
        long whole = scored.tumour_tiles as long
        long percent = (200 * part + whole).intdiv(2 * whole) as long
        if (percent == 10 && 10 * part < whole) {
            long tenths = (1000 * part).intdiv(whole) as long
            return "${tenths.intdiv(10)}.${tenths % 10} %"
        }
        if (percent == 0 && part > 0) {
            return '<1 %'
        }
        return percent == 100 && part < whole ? '>99 %' : "${percent} %"
    }

}
