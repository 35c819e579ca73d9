/*
 * HER2: the scores of all images of the project in a table; a click opens the image (research use only).
 *
 * One column says whether the score still stands: STALE means that regions changed since. It is of the
 * project as it was saved.
 * Needs a project. Writes nothing. In blind mode an image's score is shown once the reader's own is there.
 * Headless it prints the table: QuPath script "HER2 - Show results.groovy" -p project.qpproj
 */

import static qupath.lib.gui.scripting.QPEx.getCurrentImageData
import static qupath.lib.gui.scripting.QPEx.getProject
import static qupath.lib.gui.scripting.QPEx.getQuPath

// her2bridge: written by `her2bridge scripts install`, do not edit
final String PYTHON = ''
final String SHARED = ''
final String INSTALLED = ''
// her2bridge: end

if (!SHARED) {
    throw new IllegalStateException('Not installed: run  her2bridge scripts install  in a terminal.')
}
def shared = new GroovyClassLoader(getClass().classLoader)
def her2script = shared.parseClass(new GroovyCodeSource(new File(SHARED, 'Her2Script.groovy'), 'UTF-8'))
her2script.run(python: PYTHON, shared: SHARED, installed: INSTALLED, binding: binding,
        qupath: getQuPath(), project: getProject(), imageData: getCurrentImageData()) { her2 ->
    if (!her2.first) {
        return
    }
    def entries = her2.entries
    def keys = her2.names.metadata
    def scored = entries.any { it.metadataMap.containsKey(keys.run) }
    def standings = []
    def note = 'Shares are of tumour tiles, not of cells; 0 is the tile class Negative.'
    if (scored) {
        def progress = her2.user.progress('Looking whether the scores still stand')
        her2.bridge.guarded({ note += " Whether the scores still stand could not be found out: ${it.what}" }) {
            standings = her2.standings(progress)
        }
        progress.close()
        if (standings.size() != entries.size()) {  // images came or went since the project was saved
            standings = []
        }
    }
    def rows = entries.withIndex().collect { entry, place ->
        def there = entry.metadataMap
        def hidden = her2.settings.blind && !there.containsKey(her2.names.reader_score)
        def unsaved = her2.viewerOf(entry)?.imageData?.changed ? ' (unsaved changes)' : ''
        def shown = ['score', 'status', 'share_3+', 'share_2+', 'share_1+', 'share_0', 'review'].collect {
            hidden ? '' : there[keys[it]] ?: ''
        }
        def reader = there[her2.names.reader_score] ?: ''
        [entry.imageName, shown[0], (standings[place] ?: '') + unsaved, reader] + shown.tail()
    }
    def columns = ['Image', 'Score', 'Does it stand?', 'Reader', 'Status', '3+ %', '2+ %', '1+ %', '0 %', 'For review']
    her2.user.table('HER2: results', note, columns, rows) { place ->
        if (her2.qupath.project.is(her2.project)) {
            her2.qupath.openImageEntry(entries[place])
        }
    }
}
