/*
 * Where nobody looks: what Her2Windows asks and shows becomes lines of the log, and every question has a plain answer.
 *
 * For scripts without a viewer: QuPath script, Run for project. The same methods as Her2Windows.
 */

import org.slf4j.Logger
import org.slf4j.LoggerFactory

class Her2Log implements Her2Bridge.Listener {

    private static final Logger LOG = LoggerFactory.getLogger('her2bridge')
    private static final long BETWEEN_LINES = 10_000  // ms

    private long last

    void start(Closure work) {
        work()
    }

    /** Told, and thrown on: QuPath then counts the script as failed. */
    void failed(Her2Failure failure) {
        failure.log.each { LOG.warn('engine: {}', it) }
        LOG.error(failure.message)
        throw failure
    }

    void say(String title, String text) {
        LOG.info('{}: {}', title, text)
    }

    boolean confirm(String title, String text, String button) {
        LOG.info('{}: {}', title, text)
        true
    }

    String choose(String title, String text, List<String> answers) {
        answers.first()
    }

    List<Integer> pick(String title, String text, List<Map> rows) {
        rows.findIndexValues { !it.why }*.intValue()
    }

    String readerScore(String image) {
        LOG.info('{}: the blind mode asks nobody here', image)
        null
    }

    File fileToOpen(String title) {
        null
    }

    File fileToSave(String title, String suggested) {
        null
    }

    void result(Map shown) {
        LOG.info('{}\n{}', shown.image, shown.summary)
    }

    void table(String title, String text, List<String> columns, List<List<String>> rows, Closure opened) {
        def all = [columns] + rows
        def widths = columns.indices.collect { column -> all.collect { it[column].length() }.max() }
        def lines = all.collect { row -> row.indices.collect { row[it].padRight(widths[it]) }.join('  ').trim() }
        LOG.info('{}\n{}\n{}', title, lines.join('\n'), text)
    }

    /** The same methods as the progress window. */
    Her2Log progress(String title) {
        LOG.info(title)
        this
    }

    void image(String name, int index, int count) {
        LOG.info('{} ({} of {})', name, index + 1, count)
    }

    void onEvent(Map event) {
        if (event.type == 'warned') {
            LOG.warn('{}', event.message)
        } else if (event.type == 'progress' && System.currentTimeMillis() - last > BETWEEN_LINES) {
            last = System.currentTimeMillis()
            def speed = Math.round(event.tiles_per_second as double)
            LOG.info('{} of {} tiles, {} tiles/s', event.done, event.total, speed)
        }
    }

    void onLog(String line) {
        LOG.debug(line)
    }

    boolean isCancelled() {
        false
    }

    void close() {
    }
}
