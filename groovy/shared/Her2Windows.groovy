/*
 * The windows of her2bridge's scripts: progress, result, questions, tables. Plain JavaFX, no QuPath classes.
 *
 * Called from a script's thread; each method waits for its answer, save result() and table(), whose windows stay while
 * the script ends. An interrupted script ("Kill running script") is a cancelled one.
 */

import javafx.application.Platform
import javafx.beans.property.SimpleStringProperty
import javafx.beans.value.ChangeListener
import javafx.geometry.Insets
import javafx.geometry.Pos
import javafx.scene.Node
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.ButtonBar
import javafx.scene.control.ButtonType
import javafx.scene.control.CheckBox
import javafx.scene.control.Dialog
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.control.ScrollPane
import javafx.scene.control.Slider
import javafx.scene.control.TableColumn
import javafx.scene.control.TableRow
import javafx.scene.control.TableView
import javafx.scene.control.TextArea
import javafx.scene.input.Clipboard
import javafx.scene.input.ClipboardContent
import javafx.scene.layout.BorderPane
import javafx.scene.layout.HBox
import javafx.scene.layout.Priority
import javafx.scene.layout.Region
import javafx.scene.layout.VBox
import javafx.stage.FileChooser
import javafx.stage.Modality
import javafx.stage.Stage
import javafx.stage.Window
import org.slf4j.LoggerFactory

import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor
import java.util.function.Supplier

class Her2Windows {

    private static final String RESEARCH = 'Research use only. It assists; it does not diagnose.'
    private static final String MEANING =
        'A tile\'s class "Negative" means 0. Shares are of tumour tiles, not of cells.'
    private static final List<String> SCORES = ['0', '1+', '2+', '3+', 'Not assessable']

    private final Window parent  // a closure's `owner` is something else

    /** parent: QuPath's main window; may be null. */
    Her2Windows(Window parent) {
        this.parent = parent
    }

    /** Run the script's work: here, or, where this is the thread that draws QuPath, on one of its own. */
    void start(Closure work) {
        if (!Platform.isFxApplicationThread()) {
            work()
            return
        }
        def thread = new Thread(work as Runnable, 'her2bridge')
        thread.daemon = true
        thread.start()
    }

    /** Run work on the thread that draws QuPath, some time soon. */
    static void later(Closure work) {
        Platform.runLater(work as Runnable)
    }

    /** What happened, where, and what to do next. */
    void failed(Her2Failure failure) {
        LoggerFactory.getLogger('her2bridge').error(failure.message)
        ask('HER2', box(heading(failure.what), text(failure.where), text(failure.nextStep)), [ButtonType.OK])
    }

    void say(String title, String message) {
        ask(title, text(message), [ButtonType.OK])
    }

    /** Whether the button that is named was pressed, and not Cancel. */
    boolean confirm(String title, String question, String button) {
        def yes = new ButtonType(button, ButtonBar.ButtonData.OK_DONE)
        ask(title, text(question), [yes, ButtonType.CANCEL]) == yes
    }

    /** One of the answers; the first is the default. */
    String choose(String title, String question, List<String> answers) {
        def buttons = answers.withIndex().collect { answer, place ->
            new ButtonType(answer, place == 0 ? ButtonBar.ButtonData.OK_DONE : ButtonBar.ButtonData.OTHER)
        }
        orCancel(ask(title, text(question), buttons + ButtonType.CANCEL)).text
    }

    /** Places of the rows that were ticked. A row: name, why (why it cannot be chosen; null where it can), chosen. */
    List<Integer> pick(String title, String question, List<Map> rows) {
        def ticks = rows.collect { row ->
            def tick = new CheckBox(row.why ? "${row.name}  (${row.why})" : row.name)
            tick.mnemonicParsing = false
            tick.disable = row.why != null
            tick.selected = row.chosen && !row.why
            tick
        }
        def free = ticks.findAll { !it.disabled }
        def all = new CheckBox('All')
        all.selected = free.every { it.selected }
        all.onAction = { free.each { it.selected = all.selected } }
        def list = new ScrollPane(box(*ticks))
        list.setPrefSize(480, 280)
        def run = new ButtonType('Score', ButtonBar.ButtonData.OK_DONE)
        orCancel(ask(title, box(text(question), all, list), [run, ButtonType.CANCEL]))
        ticks.findIndexValues { it.selected }*.intValue()
    }

    /** Blind mode: the reader's own score, before ours is shown. */
    String readerScore(String image) {
        def buttons = SCORES.collect { new ButtonType(it, ButtonBar.ButtonData.OTHER) }
        def question = "Your own score of ${image}, please. It is kept with the image; ours is shown afterwards."
        orCancel(ask('HER2: blind reading', text(question), buttons + ButtonType.CANCEL)).text
    }

    File fileToOpen(String title) {
        orCancel(onFx { chooser(title, null).showOpenDialog(parent) })
    }

    File fileToSave(String title, String suggested) {
        orCancel(onFx { chooser(title, suggested).showSaveDialog(parent) })
    }

    private static FileChooser chooser(String title, String suggested) {
        def one = new FileChooser()
        one.title = title
        one.initialFileName = suggested
        one.extensionFilters.add(new FileChooser.ExtensionFilter('GeoJSON', '*.geojson.gz', '*.geojson', '*.gz'))
        one
    }

    /**
     * The result, in a window that stays open beside the slide. shown: image, review (reasons), headline, details
     * (lines), shares (of label, color [r, g, b], percent), sentence, fill, opacity, locked; onFill, onOpacity, onLock
     * hear what the reader chooses.
     */
    void result(Map shown) {
        onFx { window("HER2: ${shown.image}", resultPane(shown)).show() }
    }

    private static Node resultPane(Map shown) {
        def reasons = shown.review.collect { text("\u2022 ${it}") } ?: [text('No reason for a review was found.')]
        def sentence = new TextArea(shown.sentence)
        sentence.editable = false
        sentence.wrapText = true
        sentence.prefRowCount = 2
        def copy = new Button('Copy')
        copy.minWidth = Region.USE_PREF_SIZE
        copy.onAction = { copyText(shown.sentence) }
        def line = new HBox(8, sentence, copy)
        HBox.setHgrow(sentence, Priority.ALWAYS)
        box(heading(shown.review ? 'For review' : 'Review'), *reasons,
            heading(shown.headline), bar(shown.shares), *shown.details.collect { text(it) }, line,
            heading('Tiles'), options(shown), text(MEANING), text(RESEARCH))
    }

    private static void copyText(String sentence) {
        def content = new ClipboardContent()
        content.putString(sentence)
        Clipboard.systemClipboard.setContent(content)
    }

    /** The shares as one bar in the tiles' colours, with a legend. */
    private static Node bar(List<Map> shares) {
        def parts = shares.collect { one ->
            def part = new Region()
            part.style = "-fx-background-color: ${css(one.color)};"
            part.setPrefSize(4.6 * one.percent, 16)
            part
        }
        def legend = shares.collect { one ->
            def dot = new Region()
            dot.style = "-fx-background-color: ${css(one.color)};"
            dot.setMinSize(12, 12)
            dot.setMaxSize(12, 12)
            def both = new HBox(4, dot, new Label(String.format('%s: %.1f %%', one.label, one.percent as double)))
            both.alignment = Pos.CENTER_LEFT
            both
        }
        shares ? new VBox(4, new HBox(*parts), new HBox(16, *legend)) : new VBox()
    }

    private static String css(List<Integer> color) {
        "rgb(${color.join(',')})"
    }

    /** Filling and opacity of the tiles, and locking the regions; each acts at once. */
    private static Node options(Map shown) {
        def fill = new CheckBox('Fill tiles')
        fill.selected = shown.fill
        fill.onAction = { shown.onFill(fill.selected) }
        def opacity = new Slider(0, 1, shown.opacity as double)
        opacity.valueProperty().addListener({ value, old, now -> shown.onOpacity(now) } as ChangeListener)
        def lock = new CheckBox('Lock the scored regions')
        lock.selected = shown.locked
        lock.onAction = { shown.onLock(lock.selected) }
        def row = new HBox(12, fill, new Label('Opacity'), opacity, lock)
        row.alignment = Pos.CENTER_LEFT
        row
    }

    /** A table in a window that stays open; a click on a row tells its place to `opened`, on the script's behalf. */
    void table(String title, String note, List<String> columns, List<List<String>> rows, Closure opened) {
        onFx {
            def table = new TableView<List<String>>()
            columns.eachWithIndex { name, place ->
                def column = new TableColumn<List<String>, String>(name)
                column.cellValueFactory = { new SimpleStringProperty(it.value[place]) }
                table.columns.add(column)
            }
            table.items.setAll(rows)
            table.rowFactory = {
                def row = new TableRow<List<String>>()
                row.onMouseClicked = { if (!row.empty) { opened(rows.findIndexOf { it.is(row.item) }) } }
                row
            }
            table.setPrefSize(980, 380)
            VBox.setVgrow(table, Priority.ALWAYS)
            window(title, box(table, text(note), text(RESEARCH))).show()
        }
    }

    /** A window over QuPath's that shows how far the engine is, until close(). It takes the bridge's events. */
    Progress progress(String title) {
        onFx { new Progress(this, title) }
    }

    static class Progress implements Her2Bridge.Listener {

        private final Label head = new Label()
        private final Label line = new Label('Starting ...')
        private final ProgressBar bar = new ProgressBar(ProgressBar.INDETERMINATE_PROGRESS)
        private final Button cancel = new Button('Cancel')
        private final Her2Windows windows
        private final Stage stage
        private volatile boolean cancelled

        Progress(Her2Windows windows, String title) {
            this.windows = windows
            head.text = title
            bar.maxWidth = Double.MAX_VALUE
            cancel.onAction = { ask() }
            def buttons = new HBox(cancel)
            buttons.alignment = Pos.CENTER_RIGHT
            stage = windows.window('HER2', box(head, bar, line, buttons))
            // Nobody can draw or open another image meanwhile; the script editor, a window of its own, stays usable.
            stage.initModality(Modality.WINDOW_MODAL)
            stage.onCloseRequest = { it.consume(); ask() }
            stage.show()
        }

        private void ask() {
            cancelled = true
            cancel.disable = true
            line.text = 'Cancelling ...'
        }

        /** Where several images are done: which one this is. */
        void image(String name, int index, int count) {
            Platform.runLater {
                head.text = "${name} (${index + 1} of ${count})"
                line.text = 'Starting ...'
                bar.progress = ProgressBar.INDETERMINATE_PROGRESS
            }
        }

        void onEvent(Map event) {
            if (event.type == 'warned') {
                LoggerFactory.getLogger('her2bridge').warn(event.message)
            } else if (event.type in ['runtime_chosen', 'image_started', 'progress'] && !cancelled) {
                Platform.runLater { show(event) }
            }
        }

        private void show(Map event) {
            if (event.type == 'runtime_chosen') {
                line.text = "The network runs on ${event.device}."
            } else if (event.type == 'image_started') {
                line.text = "${event.tiles} tiles"
            } else {
                bar.progress = event.total ? event.done / event.total : 1
                def speed = Math.round(event.tiles_per_second as double)
                line.text = "${event.done} of ${event.total} tiles, ${speed} tiles/s, " +
                    "${time(event.seconds_left as double)} left"
            }
        }

        private static String time(double seconds) {
            seconds < 90 ? "${Math.round(seconds)} s" : "${Math.round(seconds / 60)} min"
        }

        void onLog(String text) {
            LoggerFactory.getLogger('her2bridge').info(text)
        }

        boolean isCancelled() {
            cancelled || Thread.currentThread().isInterrupted()
        }

        void close() {
            Platform.runLater { stage.close() }
        }
    }

    private Object ask(String title, Node content, List<ButtonType> buttons) {
        onFx {
            def dialog = new Dialog<ButtonType>()
            dialog.initOwner(parent)
            dialog.title = title
            dialog.resizable = true
            dialog.dialogPane.content = content
            dialog.dialogPane.buttonTypes.setAll(buttons)
            dialog.showAndWait().orElse(null)
        }
    }

    private static Object orCancel(Object answer) {
        if (answer == null || answer == ButtonType.CANCEL) {
            throw new Her2Cancelled()
        }
        answer
    }

    /** Make and run on the thread of JavaFX, and wait for what comes out. */
    private static Object onFx(Closure work) {
        if (Platform.isFxApplicationThread()) {
            return work()
        }
        def answer = CompletableFuture.supplyAsync(work as Supplier, { Platform.runLater(it) } as Executor)
        try {
            return answer.get()
        } catch (InterruptedException killed) {
            throw new Her2Cancelled()
        } catch (ExecutionException failure) {
            throw failure.cause
        }
    }

    private Stage window(String title, Node content) {
        def stage = new Stage()
        stage.initOwner(parent)
        stage.title = title
        def pane = new BorderPane(content)
        pane.padding = new Insets(14)
        stage.scene = new Scene(pane)
        stage
    }

    private static VBox box(Node... content) {
        def one = new VBox(8, content)
        one.minWidth = 480
        one.maxWidth = 1000
        one
    }

    private static Label heading(String words) {
        def one = text(words)
        one.style = '-fx-font-weight: bold; -fx-font-size: 1.15em;'
        one
    }

    private static Label text(String words) {
        def one = new Label(words)
        one.wrapText = true
        one.maxWidth = 480
        one.minHeight = Region.USE_PREF_SIZE
        one
    }
}
