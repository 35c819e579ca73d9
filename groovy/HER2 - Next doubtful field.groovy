/*
 * HER2: go to the next of the twenty tiles that decide the score (research use only).
 *
 * These are the tiles of tumour whose two likeliest classes are closest to each other. Look at the tile; if its
 * class is wrong, give it the right one (select a class, Set selected), and run the script again: tiles that you
 * reclassified are passed over. At the end run "HER2 - Recalculate score". A tile of the class Negative is 0.
 * Needs tiles of an earlier run. Writes nothing. Headless it lists the tiles.
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
    def image = her2.image
    def tiles = image.doubtfulTiles()
    if (!tiles) {
        throw her2.failure('There are no tumour tiles here.', image.name, 'Run "HER2 - Score this image" first.')
    }
    def told = tiles.withIndex().collect { tile, place ->
        def shares = her2.names.classes.collect { one -> [one.label, tile.measurementList.get(one.probability)] }
        def best = shares.sort { -it[1] }.take(2).collect { String.format('%s %.2f', it[0], it[1]) }.join(', ')
        def at = [tile.ROI.centroidX, tile.ROI.centroidY].collect { Math.round(it) }.join(', ')
        "${place + 1} of ${tiles.size()}, at ${at}: ${best}${image.isCorrected(tile) ? ' (corrected)' : ''}"
    }
    if (her2.viewer == null) {
        her2.user.say('HER2: doubtful tiles', told.join('\n'))
        return
    }
    def last = tiles.indexOf(image.imageData.hierarchy.selectionModel.selectedObject)
    def next = (tiles.drop(last + 1) + tiles.take(last + 1)).find { !image.isCorrected(it) }
    if (next == null) {
        her2.user.say('HER2', 'All of these tiles are corrected. Run "HER2 - Recalculate score".')
        return
    }
    println "HER2: doubtful tile ${told[tiles.indexOf(next)]}"
    her2.later {
        def viewer = her2.viewer
        viewer.setDownsampleFactor(Math.min(viewer.downsampleFactor, next.ROI.boundsWidth / 128))
        viewer.setCenterPixelLocation(next.ROI.centroidX, next.ROI.centroidY)
        image.imageData.hierarchy.selectionModel.setSelectedObject(next)
    }
}
